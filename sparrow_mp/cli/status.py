"""`sparrow status`: the supervisor's state."""

from __future__ import annotations

import sys
from typing import Any

import click

from sparrow_mp.cli.common import connect_running, example, json_option, places
from sparrow_mp.cli.output import Line, coloured, out, out_json, paint
from sparrow_mp.cli.words import duration, seconds_since


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
            ", ".join(f"{count:,} {status.replace('_', ' ')}" for status, count in counts.items() if count) or "none",
        ),
        ("tcp", str(told.get("tcp") or "off")),
        ("unix", str(told.get("unix") or "off")),
        ("control", str(told.get("control", "-"))),
        ("events", str(told.get("events", "-"))),
        ("state", state),
    ]
    head = f"supervisor {told.get('version', '?')}, pid {told.get('pid', '?')}"
    lines: list[Line] = [[(head, "bold"), (f", up {duration(up)}" if up is not None else "", "")]]
    lines += [[(f"{name:<8} ", "dim"), (value, "")] for name, value in rows]
    lines += [[("problem  ", "red"), (str(problem), "")] for problem in told.get("problems") or ()]
    return lines
