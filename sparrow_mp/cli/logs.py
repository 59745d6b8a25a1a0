"""`sparrow logs`: the transcript of a run."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sparrow_mp import events as ev
from sparrow_mp.cli.common import connect_running, example, json_option, places
from sparrow_mp.cli.complete import complete_any
from sparrow_mp.cli.output import out_json, say
from sparrow_mp.cli.record import time_of
from sparrow_mp.cli.screen import RecordView
from sparrow_mp.cli.values import SINCE

_ANY = "~"
"""After every time: what is no event is shown, so that it is noticed."""


@click.command(epilog=example(
    "sparrow logs 1b0c",
    "sparrow logs -f tests",
    "sparrow logs tests --since 5m",
    "sparrow logs tests --json | jq .type",
))  # fmt: skip
@click.argument("run", shell_complete=complete_any)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option(
    "--since", type=SINCE, metavar="SEQ|TIME", default=0, help="After this seq, or from this time: 5m ago, or RFC 3339."
)
@json_option
def command(run: str, follow: bool, since: int | str, as_json: bool) -> None:
    """Show the transcript of a run, every event with its time; a `!` marks what it wrote to its standard error.

    It is read from the files: no supervisor is needed. Escape sequences other than colours are made visible.
    """
    lines = read(run, since, follow)
    if as_json:
        for line in lines:
            out_json(line)
        return
    view = RecordView()
    try:
        for line in lines:
            try:
                view.show(ev.decode(line))
            except ev.EventError as error:
                say(f"an event cannot be read: {error}")
    finally:
        view.close()


def read(ref: str, since: int | str, follow: bool) -> Iterator[bytes]:
    """The run's lines from there on; with ``follow`` until it ends, woken by its supervisor where there is one."""
    from sparrow_mp.follow import find_run, read_run
    from sparrow_mp.paths import supervisor_alive

    found = find_run(places(), ref)
    first = since if isinstance(since, int) else 0
    if follow and supervisor_alive(places()):
        lines: Iterator[bytes] = connect_running().lines(found, since=first)
    else:
        lines = read_run(places(), found, first, follow=follow)
    if isinstance(since, int):
        return lines
    return (line for line in lines if (time_of(line) or _ANY) >= since)
