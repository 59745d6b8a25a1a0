"""`sparrow rm`: delete the transcripts of ended runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sparrow_mp.cli.common import connect_running, example, places
from sparrow_mp.cli.complete import complete_any
from sparrow_mp.cli.output import say
from sparrow_mp.cli.record import Record
from sparrow_mp.cli.words import short
from sparrow_mp.errors import NoSuchRun

if TYPE_CHECKING:
    from sparrow_mp.client import Client
    from sparrow_mp.paths import Places

_BATCH = 500


@click.command(epilog=example("sparrow rm 1b0c", "sparrow rm $(sparrow ps -a -q --status failed)"))
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", shell_complete=complete_any)
def command(runs: tuple[str, ...]) -> int:
    """Delete the transcripts of ended runs. One that has not ended is left alone, with exit code 1."""
    from sparrow_mp.follow import find_run

    where = places()
    found = [Record(run, where.transcript(run)) for run in dict.fromkeys(find_run(where, given) for given in runs)]
    live = [record for record in found if not record.ended]
    for record in live:
        say(f"run {short(record.run)} has not ended; end it first: sparrow kill {short(record.run)}")
    delete([record for record in found if record not in live], where)
    return 1 if live else 0


def delete(found: list[Record], where: Places) -> None:
    """Delete these records. A supervisor that is there does it itself, since it alone owns the index.

    Without one only the folders go; the next supervisor forgets what has no transcript. What somebody else has deleted
    meanwhile is no error.
    """
    from sparrow_mp.paths import supervisor_alive
    from sparrow_mp.regular import remove_tree

    if not found:
        return
    if supervisor_alive(where):
        with connect_running() as client:
            for begin in range(0, len(found), _BATCH):
                _prune(client, [record.run for record in found[begin : begin + _BATCH]])
        return
    for record in found:
        remove_tree(record.folder)
        if record.folder.exists():
            say(f"{record.folder} cannot be removed; is it somebody else's?")


def _prune(client: Client, runs: list[str]) -> None:
    """The supervisor deletes all of them or none: where one has gone by now, one after another."""
    from sparrow_mp.wire import Prune

    try:
        client.request(Prune(runs=runs))
    except NoSuchRun:
        if len(runs) > 1:
            for run in runs:
                _prune(client, [run])
