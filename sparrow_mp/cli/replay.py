"""`sparrow replay`: show a transcript at its own pace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click

from sparrow_mp import events as ev
from sparrow_mp.cli.common import example, json_option, places
from sparrow_mp.cli.complete import complete_any
from sparrow_mp.cli.output import out_json, say
from sparrow_mp.cli.record import time_of
from sparrow_mp.cli.screen import RecordView
from sparrow_mp.errors import StateError
from sparrow_mp.transcript import EVENTS, iter_lines, normalise


@click.command(epilog=example(
    "sparrow replay 1b0c",
    "sparrow replay --speed 10 tests",
    "sparrow replay --speed 0 ~/old/transcripts/7f3e/",
))  # fmt: skip
@click.argument("run", metavar="RUN|PATH", shell_complete=complete_any)
@click.option("--speed", type=click.FloatRange(min=0), default=1.0, metavar="N", help="N times as fast; 0 is at once.")
@json_option
def command(run: str, speed: float, as_json: bool) -> None:
    """Show a run's transcript again at its own pace; or one in a folder or a .jsonl file, sparrow-cli's too.

    What bears no times (sparrow-cli records none) is shown at once.
    """
    pace = Pace(speed)
    view = RecordView()
    try:
        for line in lines_of(run):
            pace.wait(time_of(line))
            if as_json:
                out_json(line)
                continue
            try:
                view.show(ev.decode(line))
            except ev.EventError as error:
                say(f"an event cannot be read: {error}")
    finally:
        view.close()


class Pace:
    """Waits until an event is due, counted from the first one: what is late is not made later by what was before it."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._first: datetime | None = None
        self._began = 0.0

    def wait(self, ts: str) -> None:
        """Wait until the event of this time is due."""
        if not self._speed or not ts:
            return
        try:
            moment = datetime.fromisoformat(ts)
        except ValueError:
            return
        if self._first is None:
            self._first, self._began = moment, time.monotonic()
        due = self._began + (moment - self._first).total_seconds() / self._speed
        time.sleep(max(0.0, due - time.monotonic()))  # the pace of the record


def lines_of(run: str) -> Iterator[bytes]:
    """The lines of a run, or of a path where there is one of that name."""
    path = Path(run).expanduser()
    if path.is_dir():
        if not any(path.glob("events*.jsonl")):
            raise StateError(f"{path} holds no {EVENTS}; it is no transcript")
        return iter_lines(path)
    if path.is_file():
        return _lines_of_file(path)
    from sparrow_mp.follow import read_run

    return read_run(places(), run)


def _lines_of_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                ev.decode_header(line)
                yield normalise(line.rstrip(b"\n"), number)
            except ValueError as error:
                raise StateError(f"{path}, line {number}, is no event: {error}") from None
