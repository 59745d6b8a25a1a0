"""`sparrow status`: the supervisor's state."""

from __future__ import annotations

import sys
from typing import Any

import click

from sparrow_mp._version import __version__
from sparrow_mp.cli.common import connect_running, example, json_option, places
from sparrow_mp.cli.output import Line, coloured, out, out_json, paint
from sparrow_mp.cli.words import clean, duration, money, plural, seconds_since


@click.command(epilog=example("sparrow status", "sparrow status --json | jq -r .tcp"))
@json_option
def command(as_json: bool) -> None:
    """Show the supervisor: its version, process, addresses and runs. Without one it says so and exits 69."""
    with connect_running() as client:
        told = client.status()
    if as_json:
        out_json({key: value for key, value in told.items() if key != "ok"})
        return
    colour = coloured(sys.stdout)
    for line in status_lines(told, str(places().state)):
        out(paint(line, colour))


def status_lines(told: dict[str, Any], state: str) -> list[Line]:
    """What the supervisor told, as lines."""
    counts = told.get("runs") or {}
    up = seconds_since(str(told.get("started", "")))
    rows = [
        (
            "runs",
            ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in _in_order(counts) if count)
            or "none",
        ),
        *_doing(told),
        ("tcp", _address(told, "tcp")),
        ("unix", _address(told, "unix")),
        ("control", str(told.get("control", "-"))),
        ("events", str(told.get("events", "-"))),
        ("state", state),
        *(
            ("warm", f"process {one['pid']} has loaded {', '.join(one['modules'])}")
            for one in told.get("warm_zygotes") or ()
        ),
    ]
    head = f"supervisor {told.get('version', '?')}, pid {told.get('pid', '?')}"
    lines: list[Line] = [[(head, "bold"), (f", up {duration(up)}" if up is not None else "", "")]]
    lines += [[(f"{name:<8} ", "dim"), (value, "")] for name, value in rows]
    if told.get("version") not in (None, __version__):
        remedy = "sparrow shutdown --keep-runs && sparrow ps"
        lines.append(
            [("note     ", "yellow"), (f"this is sparrow {__version__}; restart it, the runs go on: {remedy}", "")]
        )
    if late := told.get("needs_restart"):
        lines.append([("settings ", "yellow"), (f"{clean(', '.join(late))}: takes effect at the next start", "")])
    lines += [[("problem  ", "red"), (clean(str(problem)), "")] for problem in told.get("problems") or ()]
    return lines


_FIRST = ("running", "starting", "stopping", "queued")


def _in_order(counts: dict[str, int]) -> list[tuple[str, int]]:
    """What is alive first, then the rest as it comes."""
    return sorted(counts.items(), key=lambda item: _FIRST.index(item[0]) if item[0] in _FIRST else len(_FIRST))


def _address(told: dict[str, Any], kind: str) -> str:
    """An NDJSON address and how many listen there."""
    clients = (told.get("clients") or {}).get(kind, 0)
    return str(told.get(kind) or "off") + (f" ({plural(clients, 'client')})" if clients else "")


def _doing(told: dict[str, Any]) -> list[tuple[str, str]]:
    """What is going on, as far as there is anything to say of it."""
    rows: list[tuple[str, str]] = []
    if waiting := told.get("waiting"):
        verb = "wait" if waiting != 1 else "waits"
        rows.append(("waiting", f"{plural(waiting, 'run')} {verb} for an approval: sparrow ps; sparrow approve RUN"))
    if (queued := (told.get("runs") or {}).get("queued")) and (most := told.get("most_runs")):
        rows.append(("queue", f"{plural(queued, 'run')} for one of {plural(most, 'place')}"))
    if total := told.get("total"):
        tokens = total["tokens"]["input"] + total["tokens"]["output"]
        spent = f", {money(total['cost_usd'])}" if total["cost_usd"] else ""
        spent += f", {tokens:,} tokens" if tokens else ""
        rows.append(
            (
                "in all",
                f"{plural(sum(total['ended'].values()), 'run')} ended, {plural(total['events'], 'event')}{spent}",
            )
        )
    if to_tell := told.get("to_tell"):
        rows.append(("notify", f"{plural(to_tell, 'call')} of the command of [notify] to be made"))
    return rows
