"""`sparrow deny`: refuse what a run asks for."""

from __future__ import annotations

import click

from sparrow_mp.cli.common import connect, example, no_start_option
from sparrow_mp.cli.complete import complete_live


@click.command(epilog=example("sparrow deny 1b0c", "sparrow deny 1b0c call-7"))
@click.argument("run", shell_complete=complete_live)
@click.argument("request", required=False, metavar="[ID]")
@no_start_option
def command(run: str, request: str | None, no_start: bool) -> None:
    """Refuse what the run waits to be allowed: the request of this ID, or else its oldest."""
    with connect(no_start=no_start) as client:
        client.approve(run, "Deny", id=request)
