"""`sparrow events`: the live stream of all runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import click

from sparrow_mp import events as ev
from sparrow_mp.cli.common import connect, example, no_start_option
from sparrow_mp.cli.complete import complete_any
from sparrow_mp.cli.output import out_json, say
from sparrow_mp.cli.values import SINCE


@click.command(epilog=example(
    "sparrow events",
    "sparrow events --type RunFinished | jq .outcome.status",
    "sparrow events --run 1b0c --since 120",
    "sparrow events --since 10m",
))  # fmt: skip
@click.option(
    "--run", metavar="RUN", shell_complete=complete_any, help="Only this run, from its first event to its last."
)
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only events of this type. Repeatable, or A,B.")
@click.option(
    "--since",
    type=SINCE,
    metavar="SEQ|TIME",
    help="From this time (5m ago, or RFC 3339); with --run also after this seq.",
)
@click.option("--json", is_flag=True, expose_value=False, help="Nothing new: events are always NDJSON.")
@no_start_option
def command(run: str | None, types: tuple[str, ...], since: int | str | None, no_start: bool) -> None:
    """Print the events of all runs as they come, one JSON object a line, from now on."""
    if isinstance(since, int) and run is None:
        raise click.UsageError(f"A seq counts within one run: say --run RUN, or a time in --since ({since}s ago).")
    wanted = frozenset(name for given in types for name in given.split(",") if name)
    _hint(wanted)
    with connect(no_start=no_start) as client:
        lines: Iterator[bytes]
        if run is None:
            lines = client.lines_all(types=wanted or None, since=None if since is None else str(since))
        else:
            lines = client.lines(run, since=since if isinstance(since, int) else 0)
        for line in lines:
            if run is not None and not _fits(line, wanted, since):
                continue
            out_json(line)


def _fits(line: bytes, wanted: frozenset[str], since: int | str | None) -> bool:
    if not wanted and not isinstance(since, str):
        return True
    head = ev.decode_header(line)
    return (not wanted or head.type in wanted) and not (isinstance(since, str) and head.ts < since)


def _hint(wanted: frozenset[str]) -> None:
    """A type may be one that this version does not know; but most likely it is misspelt."""
    for name in sorted(wanted - ev.EVENT_TYPES.keys()):
        near = difflib.get_close_matches(name, ev.EVENT_TYPES, n=1, cutoff=0.5)
        say(f"no type is known as `{name}`{f'; did you mean {near[0]}?' if near else ''}")
