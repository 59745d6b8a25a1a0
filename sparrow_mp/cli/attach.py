"""`sparrow attach`: follow a run, and what you type is injected."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sparrow_mp.cli.common import connect, connect_running, example, json_option, no_start_option
from sparrow_mp.cli.complete import complete_live
from sparrow_mp.cli.output import answer, on_terminal, say
from sparrow_mp.cli.words import short
from sparrow_mp.errors import NotRunning, SparrowError
from sparrow_mp.wire import LIVE_STATUSES

if TYPE_CHECKING:
    from sparrow_mp.cli.answers import LineAnswers


@click.command(
    epilog=example("sparrow attach 1b0c", "sparrow attach --tail 100 tests", "echo 'use pytest' | sparrow attach tests")
)
@click.argument("run", shell_complete=complete_live)
@click.option(
    "--tail", type=click.IntRange(min=0), default=20, show_default=True, metavar="N", help="Begin so many events back."
)
@json_option
@no_start_option
def command(run: str, tail: int, as_json: bool, no_start: bool) -> int:
    """Follow a run; each line that you type is injected, or answers what it asks to be allowed.

    Ctrl-C leaves it running; Ctrl-D ends its input. Where it ends meanwhile, its exit code is ours.
    """
    from sparrow_mp.cli.answers import LineAnswers
    from sparrow_mp.cli.follow import follow

    with connect(no_start=no_start) as client:
        record = client.get(run)
        if record.status not in LIVE_STATUSES:
            raise NotRunning(
                f"run {short(record.run)} has ended ({record.status}); see: sparrow logs {short(record.run)}"
            )
        people = on_terminal(sys.stdin)
        if people:
            say(
                f"attached to {short(record.run)}: a line you type is injected, Ctrl-D ends its input, Ctrl-C leaves it running"
            )
        answers = LineAnswers() if people and not as_json else None
        threading.Thread(target=_hand_over, args=(record.run, people, answers), name="stdin", daemon=True).start()
        try:
            # What was typed is on the terminal already: do not show it again.
            since = max(0, record.events - tail)
            if answers is not None and record.waiting:
                answers.recall(client, record, since)
            asks = None if answers is None else lambda _view: answers
            code = follow(client, record.run, since=since, as_json=as_json, injected=not people, answering=asks)
        except KeyboardInterrupt:
            answer(f"left run {short(record.run)} alone")
            return 0
        if people and not code:
            say(f"run {short(record.run)} completed")
        return code


def _hand_over(run: str, people: bool, answers: LineAnswers | None) -> None:
    """Inject the lines of standard input; a person's end of input is the run's."""
    from sparrow_mp.cli.answers import give
    from sparrow_mp.cli.follow import inject_patiently

    if sys.stdin is None:
        return
    try:
        client = connect_running()
        for line in _lines():
            answered = answers.take(line) if answers is not None else None
            if answered is not None:
                give(client, run, *answered)
                continue
            inject_patiently(client, run, text=line)
        if people:
            client.inject(run, eof=True)
            say("its input is ended; Ctrl-C leaves it")
    except NotRunning:
        pass  # its end is being told already
    except SparrowError as error:  # before OSError: one that timed out is both
        say(f"could not inject: {error.message}")
    except OSError:
        pass  # standard input cannot be read: then only follow


def _lines() -> Iterator[str]:
    """The lines of standard input. Read without sys.stdin: a thread that waits in there would hold up our own end."""
    rest = b""
    while data := os.read(0, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").removesuffix("\r")
    if rest:
        yield rest.decode("utf-8", "replace")
