"""`sparrow kill`: interrupt runs, and wait until they have ended."""

from __future__ import annotations

import click

from sparrow_mp.cli.common import connect, example, no_start_option
from sparrow_mp.cli.complete import complete_live
from sparrow_mp.cli.output import say
from sparrow_mp.cli.values import DURATION
from sparrow_mp.cli.words import short
from sparrow_mp.errors import NotRunning
from sparrow_mp.wire import LIVE_STATUSES


@click.command(epilog=example(
    "sparrow kill 1b0c",
    "sparrow kill tests -m 'wrong branch'",
    "sparrow kill --now $(sparrow ps -q)",
))  # fmt: skip
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", shell_complete=complete_live)
@click.option("-m", "--message", default="", metavar="WORDS", help="Why; the run is told, and it is recorded.")
@click.option(
    "--grace",
    type=DURATION,
    metavar="TIME",
    help="How long it may take to end by itself (default: the setting run.grace, 10s).",
)
@click.option("--now", is_flag=True, help="Kill at once.")
@no_start_option
def command(runs: tuple[str, ...], message: str, grace: float | None, now: bool, no_start: bool) -> int:
    """Interrupt runs: SIGTERM, and after the grace period SIGKILL to the whole tree. Returns when they have ended.

    For one that had already ended it says so and exits 1.
    """
    code = 0
    with connect(no_start=no_start) as client:
        found = [client.get(run) for run in runs]
        ending = []
        for record in found:
            try:
                client.interrupt(record.run, message, grace=grace, now=now)
                ending.append(record.run)
            except NotRunning as error:
                status = client.get(record.run).status
                ended = f"run {short(record.run)} had already ended ({status})"
                say(str(error) if status in LIVE_STATUSES else ended)
                code = 1
        for run in ending:
            client.wait(run)
    return code
