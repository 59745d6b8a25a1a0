"""`sparrow supervisor`: be the daemon, in the foreground."""

from __future__ import annotations

import os
import sys

import click

from sparrow_mp.cli.common import example
from sparrow_mp.errors import StateError


@click.command(
    epilog=example("sparrow supervisor", "SPARROW_STATE_DIR=/tmp/s sparrow supervisor --config ./sparrow.toml")
)
@click.option("--config", metavar="FILE", help="The configuration file (also SPARROW_CONFIG).")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much it logs, to standard error."
)
@click.pass_context
def command(ctx: click.Context, config: str | None, log_level: str | None) -> None:
    """Be the supervisor. Ctrl-C or SIGTERM interrupts the runs and ends it. Other commands start one when they need it."""
    if not sys.executable:
        raise StateError("this program does not know its Python; run: python3 -P -m sparrow_supervisor")
    # -P: no module in the folder where this is called may stand in for one of the supervisor's.
    argv = [sys.executable, "-P", "-m", "sparrow_supervisor"]
    config = config or ctx.find_root().params.get("config")
    if config:
        argv += ["--config", os.path.abspath(config)]
    if log_level:
        os.environ["SPARROW_SUPERVISOR_LOG_LEVEL"] = log_level
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, argv)
