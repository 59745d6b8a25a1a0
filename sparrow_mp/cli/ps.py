"""`sparrow ps`: the runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from sparrow_mp.cli.common import connect, example, json_option, no_start_option
from sparrow_mp.cli.output import Span, coloured, on_terminal, out, out_json, status_style
from sparrow_mp.cli.table import table
from sparrow_mp.cli.words import age, columns, one_line, plural, short_ids, size

if TYPE_CHECKING:
    from sparrow_mp.wire import RunRecord

HEADERS = ("ID", "NAME", "STATUS", "ENGINE", "TASK", "AGE", "CPU", "MEMORY", "EVENTS")
_NAME, _STATUS, _ENGINE, _TASK, _AGE, _CPU, _MEMORY, _EVENTS = range(1, 9)
_RIGHT = frozenset({_AGE, _CPU, _MEMORY, _EVENTS})
_GIVEN_UP = (_ENGINE, _EVENTS, _AGE, _NAME, _MEMORY, _CPU)
"""What a terminal that is too narrow for all does without, in this order."""
_LEAST_TASK = 12
_SHORT_NAME = 16
_GAP = 2
_TASK_IN_PIPE = 60
_REFRESH = 1.0


@click.command(
    epilog=example("sparrow ps", "sparrow ps -a --label nightly", "sparrow kill $(sparrow ps -q)", "sparrow ps -w")
)
@click.option("-a", "--all", "everything", is_flag=True, help="Also the runs that have ended.")
@click.option("-q", "--quiet", is_flag=True, help="Only the ids.")
@click.option("-w", "--watch", is_flag=True, help="Keep showing them; q or Ctrl-C ends it.")
@click.option("--status", metavar="STATUS", help="Only those of this status.")
@click.option("--label", metavar="LABEL", help="Only those with this label.")
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="At most so many, the newest.")
@json_option
@no_start_option
def command(
    everything: bool, quiet: bool, watch: bool, status: str | None, label: str | None, limit: int | None,
    as_json: bool, no_start: bool,
) -> None:  # fmt: skip
    """List the runs: their id, name, status, engine, task, age, CPU, memory and number of events."""
    with connect(no_start=no_start) as client:

        def fetch() -> list[RunRecord]:
            return client.list(all=everything or status is not None, status=status, label=label, limit=limit)

        if watch and on_terminal(sys.stdout) and not (quiet or as_json):
            _watch(fetch)
            return
        runs = fetch()
        if as_json:
            for run in runs:
                out_json(run)
        elif quiet:
            for run in runs:
                out(run.run)
        else:
            width = os.get_terminal_size(sys.stdout.fileno()).columns if on_terminal(sys.stdout) else None
            out("\n".join(runs_table(runs, width=width, colour=coloured(sys.stdout))))


def runs_table(runs: list[RunRecord], *, width: int | None, colour: bool, now: datetime | None = None) -> list[str]:
    """The runs as lines; for a terminal of so many columns, or for a pipe."""
    ids = short_ids([run.run for run in runs])
    now = datetime.now(UTC) if now is None else now
    rows = [_row(run, ids[run.run], now, None if width else _TASK_IN_PIPE) for run in runs]
    kept = _columns(rows, width)
    if len(kept) < len(HEADERS):
        for row in rows:
            row[_NAME] = (one_line(row[_NAME][0], _SHORT_NAME), row[_NAME][1])
        kept = _columns(rows, width)
    return table(
        [HEADERS[n] for n in kept],
        [[row[n] for n in kept] for row in rows],
        right=frozenset(place for place, n in enumerate(kept) if n in _RIGHT),
        elastic=kept.index(_TASK),
        width=width,
        colour=colour,
    )


def _columns(rows: list[list[Span]], width: int | None) -> list[int]:
    """Those that there is room for, if the task is cut to its least."""
    widths = [max([len(header), *(columns(row[n][0]) for row in rows)]) for n, header in enumerate(HEADERS)]
    widths[_TASK] = min(widths[_TASK], _LEAST_TASK)
    kept = list(range(len(HEADERS)))
    for column in _GIVEN_UP:
        if width is None or sum(widths[n] + _GAP for n in kept) - _GAP <= width:
            break
        kept.remove(column)
    return kept


def _row(run: RunRecord, shown: str, now: datetime, cut: int | None) -> list[Span]:
    status = "waiting" if run.waiting else run.status
    if run.position:
        status += f" #{run.position}"
    return [
        (shown, "bold"),
        (one_line(run.name or "-", 30), "" if run.name else "dim"),
        (status, status_style(run.status, run.waiting)),
        (run.engine, ""),
        (one_line(run.task, cut), ""),
        (age(run.created, now), ""),
        (f"{run.cpu_percent:.0f}%" if run.cpu_percent is not None else "-", ""),
        (size(run.memory_bytes), ""),
        (f"{run.events}", ""),
    ]


def _watch(fetch: Callable[[], list[RunRecord]]) -> None:
    """Show the runs until q or Ctrl-C, which here is a way to leave like the other."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)

    def picture() -> Text:
        runs = fetch()
        height, width = console.size.height, console.size.width
        lines = runs_table(runs[: max(1, height - 3)], width=width, colour=coloured(sys.stdout))
        hidden = len(runs) - (len(lines) - 1)
        foot = f"{plural(len(runs), 'run')}{f', {hidden} not shown' if hidden > 0 else ''} · q ends"
        return Text.from_ansi("\n".join([*lines, "", foot]), no_wrap=True, overflow="crop")

    try:
        with _single_keys() as key, Live(picture(), console=console, screen=True, auto_refresh=False) as live:
            while key(_REFRESH) not in ("q", "Q", "\x04"):
                live.update(picture(), refresh=True)
    except KeyboardInterrupt:
        return


@contextmanager
def _single_keys() -> Iterator[Callable[[float], str]]:
    """Read keys without Enter: yields a function that waits so long for one, and gives it or an empty text."""
    import select
    import termios
    import time
    import tty

    if not on_terminal(sys.stdin):

        def sleep(seconds: float) -> str:
            time.sleep(seconds)  # the time between two looks; no key can be heard here
            return ""

        yield sleep
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def wait(seconds: float) -> str:
        ready, _, _ = select.select([fd], [], [], seconds)
        return os.read(fd, 1).decode("latin-1") or "q" if ready else ""

    try:
        tty.setcbreak(fd)
        yield wait
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
