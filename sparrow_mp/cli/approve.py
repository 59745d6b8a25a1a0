"""`sparrow approve`: allow what a run asks for."""

from __future__ import annotations

import click

from sparrow_mp.cli.common import connect, example, no_start_option
from sparrow_mp.cli.complete import complete_live
from sparrow_mp.events import Decision


@click.command(epilog=example("sparrow approve 1b0c", "sparrow approve 1b0c call-7", "sparrow approve --always 1b0c"))
@click.argument("run", shell_complete=complete_live)
@click.argument("request", required=False, metavar="[ID]")
@click.option("--once", "decision", flag_value="AllowOnce", help="This one time only.")
@click.option("--session", "decision", flag_value="AllowSession", help="And all like it in this run.")
@click.option("--always", "decision", flag_value="AllowAlways", help="And all like it from now on.")
@no_start_option
def command(run: str, request: str | None, decision: Decision | None, no_start: bool) -> None:
    """Allow what the run waits to be allowed: the request of this ID, or else its oldest."""
    with connect(no_start=no_start) as client:
        client.approve(run, decision or "Allow", id=request)
