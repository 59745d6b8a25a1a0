"""`sparrow run`: submit a task or a command, follow it, exit as it does."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from sparrow_mp.cli.common import connect, connect_running, example, json_option, no_start_option
from sparrow_mp.cli.complete import complete_engines
from sparrow_mp.cli.output import answer, coloured, drop_output, on_terminal, out, out_json, paint, say, write
from sparrow_mp.cli.values import DURATION, SIZE, parse_env
from sparrow_mp.cli.words import clean, short
from sparrow_mp.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from sparrow_mp.cli.answers import KeyAnswers
    from sparrow_mp.cli.screen import FollowView
    from sparrow_mp.client import Client

_AS_THEY_ARE = (
    "agent", "autonomy", "budget", "name", "timeout", "memory", "max_output", "max_transcript", "max_processes", "nice", "priority"
)  # fmt: skip
BROKEN_PIPE = 141
"""128 + SIGPIPE: what a program exits with whose reader has left."""


@dataclass
class Words:
    """What stands behind `--` on the command line (None where there is no `--`)."""

    argv: list[str] | None = field(default=None)


class RunCommand(click.Command):
    """Keeps what stands behind the first `--` as it is: it is a command, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See the class."""
        words = Words()
        if "--" in args:
            border = args.index("--")
            words.argv = args[border + 1 :]
            args = args[:border]
        ctx.obj = words
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if words.argv is not None:
                raise
            hint = f"{error.format_message()} Options of a command go behind `--`: sparrow run -- COMMAND…"
            raise click.UsageError(hint, ctx) from None


@click.command(cls=RunCommand, epilog=example(
    "sparrow run make test",
    "sparrow run --timeout 5m -- pytest -x tests/",
    "sparrow run -e python review.py:review --label nightly",
    "sparrow run -d --name server -- python3 -m http.server",
    "generate | sparrow run -- sort",
))  # fmt: skip
@click.argument("words", nargs=-1, metavar="TASK… | -- ARGV…", type=click.UNPROCESSED)
@click.option(
    "-e",
    "--engine",
    metavar="NAME",
    shell_complete=complete_engines,
    help="What drives the run (default: the setting run.engine, `shell`).",
)
@click.option("--agent", metavar="NAME", help="The agent, for engines that have several.")
@click.option(
    "--autonomy", type=click.Choice(["supervised", "trusted", "autonomous"]), help="How much it may do without asking."
)
@click.option("--budget", type=click.FloatRange(min=0), metavar="USD", help="End it when it has cost this much.")
@click.option("--timeout", type=DURATION, metavar="TIME", help="End it after this time: seconds, or 90s, 5m, 2h.")
@click.option("--memory", type=SIZE, metavar="SIZE", help="End it when it uses more: bytes, or 512M, 4G.")
@click.option("--max-output", type=SIZE, metavar="SIZE", help="End it when it has printed more.")
@click.option("--max-transcript", type=SIZE, metavar="SIZE", help="End it when its events take more.")
@click.option(
    "--max-processes", type=click.IntRange(min=1), metavar="N", help="End it when it has more processes at once."
)
@click.option(
    "--nice", type=click.IntRange(0, 19), metavar="N", help="Let others go first: 0 to 19, as nice(1) has it."
)
@click.option("--name", metavar="NAME", help="A name to call it by.")
@click.option("--cwd", metavar="FOLDER", help="Where it runs (default: here).")
@click.option(
    "--env", multiple=True, metavar="NAME[=VALUE]", help="Add a variable; a NAME alone must be set here. Repeatable."
)
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="A label to find it by. Repeatable.")
@click.option("--priority", type=int, metavar="N", help="Runs of a higher one leave the queue first.")
@click.option(
    "--stdin",
    type=click.Choice(["pipe", "null"]),
    default="pipe",
    show_default=True,
    help="`null`: it has no standard input, and ours is left alone.",
)
@click.option("-d", "--detach", is_flag=True, help="Print the id and return.")
@json_option
@no_start_option
def command(words: tuple[str, ...], detach: bool, as_json: bool, no_start: bool, **options: Any) -> int:
    r"""Submit a task, or the command behind `--`, follow it, and exit with its exit code.

    What it writes to its standard output and standard error comes out on ours. Ctrl-C interrupts it, a second one kills
    it; Ctrl-\ leaves it running. What is piped in is handed to it, as with ssh: where a loop reads the same input, say
    `--stdin null`. The environment and the folder are the caller's.
    """
    request = build_request(words, click.get_current_context().find_object(Words) or Words(), options)
    with connect(no_start=no_start) as client:
        if not detach:
            return submit_and_follow(client, request, as_json)
        run = client.submit(**request).id
        if as_json:
            out_json({"run": run})
        else:
            out(run)
        return 0


def build_request(words: tuple[str, ...], behind: Words, options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of Client.submit. Raises click.UsageError."""
    engine = options["engine"]
    task = " ".join(words)
    argv = behind.argv
    if argv is not None and not argv:
        raise click.UsageError("There is no command behind `--`.")
    if argv is None and not task.strip():
        raise click.UsageError("Say what to run: a TASK, or a command behind `--`.")
    if engine == "command" and argv is None:
        argv, task = list(words), ""
    if task and argv is not None and engine in (None, "command"):
        raise click.UsageError("Give a TASK or a command behind `--`, not both.")
    try:
        env = parse_env(options["env"], os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return {
        "task": _text(task, "the task"),
        "argv": None if argv is None else [_text(word, "the command") for word in argv],
        "engine": engine,
        "cwd": _text(_folder(options["cwd"]), "the folder"),
        "env": passable(env),
        "labels": list(options["labels"]) or None,
        "stdin": options["stdin"],
        **{key: options[key] for key in _AS_THEY_ARE},
    }


def _folder(given: str | None) -> str:
    try:
        return os.path.abspath(os.path.expanduser(given)) if given is not None else os.getcwd()
    except FileNotFoundError:
        raise BadRequest("the folder you are in has been deleted; go to another one, or say --cwd FOLDER") from None


def _text(text: str, what: str) -> str:
    """A request is JSON, which is Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{what} is not UTF-8: {clean(text)}") from None
    return text


def passable(env: dict[str, str]) -> dict[str, str]:
    """The environment without what cannot be handed on, which is told."""
    passable = {}
    for name, value in env.items():
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError:
            say(f"the variable {clean(name)} is not UTF-8 and is not handed on")
            continue
        passable[name] = value
    return passable


def submit_and_follow(client: Client, request: dict[str, Any], as_json: bool) -> int:
    """Submit it, follow it on this terminal; the exit code is the run's."""
    from sparrow_mp.cli.answers import people_can_answer
    from sparrow_mp.cli.follow import Controls, Detached, follow, forward_stdin, stdin_to_forward

    if sys.stdin is None:  # it was closed (`<&-`): there will be no input
        request = {**request, "stdin": "null"}
    controls = Controls(connect_running)
    run = ""
    try:
        with controls.installed():
            run = client.submit(**request).id
            controls.serve(run)
            if on_terminal(sys.stderr) and not as_json:
                hint = f"run {short(run)}: Ctrl-C interrupts it, Ctrl-\\ leaves it running"
                write(sys.stderr, paint([(hint, "dim")], coloured(sys.stderr)) + "\n")
            forwarding = request["stdin"] == "pipe" and stdin_to_forward()
            if forwarding:
                forward_stdin(run, connect_running)
            people = people_can_answer() and not as_json and not forwarding
            asks = _answers_of(run) if people else None
            return follow(client, run, as_json=as_json, injected=not forwarding, answering=asks)
    except Detached:
        if not run:
            raise KeyboardInterrupt from None
        answer(f"left run {run} alone; follow it with: sparrow attach {short(run)}")
        return 0
    except BrokenPipeError:
        # In a shell the program itself would meet the closed pipe and end; here it must be told.
        client.interrupt(run, message="nobody reads its output any more")
        drop_output()
        return BROKEN_PIPE


def _answers_of(run: str) -> Callable[[FollowView], KeyAnswers]:
    """Who asks people what the run wants to be allowed."""
    from sparrow_mp.cli.answers import KeyAnswers

    return lambda view: KeyAnswers(run, connect_running, view.make_room)
