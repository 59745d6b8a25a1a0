"""`sparrow reload`: have the supervisor read its settings again."""

from __future__ import annotations

import click

from sparrow_mp.cli.common import connect_running, example, json_option
from sparrow_mp.cli.output import out, out_json


@click.command(epilog=example("sparrow reload", "sparrow reload --json | jq -r '.needs_restart[]'"))
@json_option
def command(as_json: bool) -> None:
    """Have the supervisor read its settings again, and say which have changed.

    It does so by itself a moment after the file has changed, and at SIGHUP. Where something is wrong the earlier settings stay
    in force, and this exits 2 and says what it is.
    """
    with connect_running() as client:
        told = client.reload()
    if as_json:
        out_json(told)
        return
    late = told.needs_restart
    names = [name for name in told.changed if name not in late]
    if names:
        out(f"in force now: {', '.join(names)}")
    if late:
        out(f"takes effect at the next start (sparrow shutdown --keep-runs): {', '.join(late)}")
    if not names and not late:
        out("nothing has changed")
