"""`sparrow wait`: until runs end."""

from __future__ import annotations

import time

import click

from sparrow_mp.cli.common import connect, example, json_option, no_start_option
from sparrow_mp.cli.complete import complete_live
from sparrow_mp.cli.output import out_json, say
from sparrow_mp.cli.values import DURATION
from sparrow_mp.cli.words import ending_of, exit_code_of, short

TIMED_OUT = 124


@click.command(epilog=example("sparrow wait 1b0c", "sparrow wait tests lint && sparrow run -- make release"))
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", shell_complete=complete_live)
@click.option(
    "--timeout", type=DURATION, metavar="TIME", help="Give up after this time, with exit code 124; they go on."
)
@json_option
@no_start_option
def command(runs: tuple[str, ...], timeout: float | None, as_json: bool, no_start: bool) -> int:
    """Wait until the runs end; exits as `sparrow run` would have: with the code of the first that failed, in this order."""
    deadline = None if timeout is None else time.monotonic() + timeout
    code = 0
    with connect(no_start=no_start) as client:
        for run in [client.get(given).run for given in runs]:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                record = client.wait(run, timeout=left)
            except TimeoutError:
                say(f"run {short(run)} has not ended yet")
                return TIMED_OUT
            if as_json:
                out_json(record)
            failed = exit_code_of(record)
            if failed:
                say(f"run {short(run)} {ending_of(record)}")
            code = code or failed
    return code
