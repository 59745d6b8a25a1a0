"""`sparrow model`: a local model for programs that speak OpenAI's protocol."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparrow_mp.cli.common import example, json_option, no_start_option, places
from sparrow_mp.cli.output import Line, answer, coloured, out, out_json, paint, say
from sparrow_mp.cli.values import DURATION
from sparrow_mp.cli.words import duration
from sparrow_mp.model_address import endpoint

if TYPE_CHECKING:
    from sparrow_mp.model_address import Endpoint


@click.group(
    epilog=example(
        "sparrow model serve",
        "sparrow model serve --model ~/models/qwen.gguf --idle 1h",
        'eval "$(sparrow model env)"',
        "sparrow kill model",
    )
)
def command() -> None:
    """Serve a local model, which programs on this machine ask through OpenAI's protocol.

    It is a run like any other, with the name `model`: see it with ps and logs, end it with kill.
    """


@command.command(epilog=example("sparrow model serve", "sparrow model serve --model ~/models/qwen.gguf --idle 1h"))
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.gguf",
    help="The model (default: that of the settings, else a small one for trying things out, fetched once).",
)
@click.option("--idle", type=DURATION, default=0.0, metavar="TIME", help="End it after so long without a request.")
@no_start_option
@json_option
def serve(model: Path | None, idle: float, no_start: bool, as_json: bool) -> None:
    """Start serving, in the background, and say how to use it."""
    from sparrow_mp.local_model import ensure

    there = endpoint(places())
    if there is not None:
        say(
            f"a local model is served already, by the run {there.run[:8]}; to serve another, end it: sparrow kill model"
        )
        _show(there, as_json)
        return
    try:
        found = ensure(places(), start=not no_start, model=model, idle=idle, tell=say)
    except KeyboardInterrupt:
        answer("it goes on in the background where it had begun; to end it: sparrow kill model")
        raise
    _show(found, as_json)


@command.command(epilog=example("sparrow model status", "sparrow model status --json | jq -r .base_url"))
@json_option
def status(as_json: bool) -> int:
    """Show what is served, and how to use it. Where there is nothing it says so and exits 1."""
    found = endpoint(places())
    if found is None:
        say("no local model is served; start one with `sparrow model serve`")
        return 1
    _show(found, as_json)
    return 0


@command.command(epilog=example('eval "$(sparrow model env)"'))
def env() -> int:
    """Print the variables by which programs find it."""
    found = endpoint(places())
    if found is None:
        say("no local model is served; start one with `sparrow model serve`")
        return 1
    out(f"export OPENAI_BASE_URL={shlex.quote(found.base_url)}\nexport OPENAI_API_KEY={shlex.quote(found.api_key)}")
    return 0


def _show(found: Endpoint, as_json: bool) -> None:
    if as_json:
        out_json(found._asdict())
        return
    colour = coloured(sys.stdout)
    note = " (small: for trying things out, not for real work)" if found.small else ""
    rows: list[tuple[str, Any]] = [
        ("model", found.model + note),
        ("url", found.base_url),
        ("context", f"{found.context:,} tokens"),
        ("run", found.run),
        (
            "ends",
            f"after {duration(found.idle).removesuffix(' 0 s')} without a request" if found.idle else "when you say so",
        ),
        ("use", 'sparrow run -e agent "say hello in five words"'),
        ("", 'eval "$(sparrow model env)" sets OPENAI_BASE_URL and OPENAI_API_KEY for other programs'),
        ("stop", "sparrow kill model"),
    ]
    for name, value in rows:
        line: Line = [(f"{name:<8} ", "dim"), (value, "bold" if name in ("model", "url") else "")]
        out(paint(line, colour))
