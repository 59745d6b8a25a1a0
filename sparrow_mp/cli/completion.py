"""`sparrow completion`: the script that teaches a shell our verbs, engines and runs."""

from __future__ import annotations

import click

from sparrow_mp.cli.common import example
from sparrow_mp.cli.output import out

_VARIABLE = "_SPARROW_COMPLETE"


@click.command(epilog=example(
    "sparrow completion bash > ~/.local/share/bash-completion/completions/sparrow",
    'eval "$(sparrow completion zsh)"    # in ~/.zshrc',
    "sparrow completion fish > ~/.config/fish/completions/sparrow.fish",
))  # fmt: skip
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell. It completes the verbs, the engines, and the ids and names of runs."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    root = ctx.find_root().command
    # Not source(): for bash that starts a bash, only to learn its version.
    completion = kind(root, {}, "sparrow", _VARIABLE)
    out((completion.source_template % completion.source_vars()).strip())
