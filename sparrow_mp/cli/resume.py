"""`sparrow resume`: the session of a run that has ended goes on in a new run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from sparrow_mp.cli.common import connect, example, json_option, no_start_option, places
from sparrow_mp.cli.complete import complete_any
from sparrow_mp.cli.output import out, out_json
from sparrow_mp.cli.record import read_inputs
from sparrow_mp.cli.run import passable, submit_and_follow
from sparrow_mp.cli.values import DURATION
from sparrow_mp.cli.words import short
from sparrow_mp.errors import BadRequest
from sparrow_mp.events import Custom

if TYPE_CHECKING:
    from sparrow_mp.client import Client
    from sparrow_mp.wire import RunRecord

_LIVE = ("queued", "spawning", "running", "interrupting")


@click.command(epilog=example(
    "sparrow resume 1b0c 'now do the same for the other module'",
    "sparrow resume -d --autonomy trusted fixer 'go on'",
))  # fmt: skip
@click.argument("run", shell_complete=complete_any)
@click.argument("words", nargs=-1, required=True, metavar="TASK…")
@click.option(
    "--autonomy",
    type=click.Choice(["supervised", "trusted", "autonomous"]),
    help="How much it may do without asking (default: as before).",
)
@click.option("--budget", type=click.FloatRange(min=0), metavar="USD", help="End it when it has cost this much.")
@click.option("--timeout", type=DURATION, metavar="TIME", help="End it after this time: seconds, or 90s, 5m, 2h.")
@click.option("--name", metavar="NAME", help="A name to call it by.")
@click.option("-d", "--detach", is_flag=True, help="Print the id and return.")
@json_option
@no_start_option
def command(run: str, words: tuple[str, ...], detach: bool, as_json: bool, no_start: bool, **options: Any) -> int:
    """Go on with an agent's session, of a run that has ended or crashed, in a run of its own.

    It is the same agent in the same folder, which knows what it did; the environment is yours now. Agents that keep no
    sessions cannot.
    """
    with connect(no_start=no_start) as client:
        before = client.get(run)
        request = {
            "task": " ".join(words),
            "session": _session(client, before),
            "engine": before.engine,
            "agent": before.agent,
            "cwd": before.cwd,
            "env": passable(dict(os.environ)),
            "labels": before.labels or None,
            "stdin": "null",
            **options,
            "autonomy": options["autonomy"] or read_inputs(places().transcript(before.run)).get("autonomy"),
        }
        if not detach:
            return submit_and_follow(client, request, as_json)
        new = client.submit(**request).id
        if as_json:
            out_json({"run": new})
        else:
            out(new)
        return 0


def _session(client: Client, before: RunRecord) -> str:
    """What the agent called its session. Raises BadRequest where it cannot go on."""
    who = f"run {short(before.run)}"
    if before.status in _LIVE:
        raise BadRequest(f"{who} has not ended; hand it the message: sparrow inject {short(before.run)} …")
    told: dict[str, Any] = {}
    for event in client.events(before.run):
        if isinstance(event, Custom) and event.name == f"{before.engine}_session" and isinstance(event.data, dict):
            told = event.data
    if not told:
        why = "ended before its agent began a session" if before.engine in ("acp", "agent") else "has no session"
        raise BadRequest(f"{who} (engine `{before.engine}`) {why}; there is nothing to go on with: use sparrow run")
    if not told.get("can_load"):
        raise BadRequest(f"the agent of {who} keeps no sessions; begin anew: sparrow run -e {before.engine} …")
    return str(told["id"])
