"""`sparrow shutdown`: end the supervisor."""

from __future__ import annotations

import click

from sparrow_mp.cli.common import connect_running, example
from sparrow_mp.cli.output import say


@click.command(epilog=example("sparrow shutdown", "sparrow shutdown --keep-runs"))
@click.option("--now", is_flag=True, help="Kill the runs at once.")
@click.option("--keep-runs", is_flag=True, help="End only the supervisor; the next one takes the runs over.")
def command(now: bool, keep_runs: bool) -> None:
    """Interrupt every run, then end the supervisor. Returns when all of it is gone; where there is none, at once."""
    if now and keep_runs:
        raise click.UsageError("--now kills the runs and --keep-runs keeps them: say one of them.")
    with connect_running() as client:
        # No limit: a run may have been given a long grace period, and Ctrl-C ends the waiting.
        if not client.shutdown(now=now, keep_runs=keep_runs, timeout=None):
            say("no supervisor is running; there is nothing to end")
