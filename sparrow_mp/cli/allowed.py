"""`sparrow allowed`: what was allowed for always, and taking it back."""

from __future__ import annotations

import os
import sys

import click
from msgspec import structs

from sparrow_mp.allowed import Allowed, read_allowed, take_back
from sparrow_mp.cli.common import example, json_option, places
from sparrow_mp.cli.output import coloured, out, out_json, say
from sparrow_mp.cli.render import RISK_STYLES
from sparrow_mp.cli.table import table
from sparrow_mp.cli.words import clean, plural

_HEADERS = ("FOLDER", "TOOL", "RISK")


@click.command(
    epilog=example("sparrow allowed", "sparrow allowed --cwd . --tool shell --forget", "sparrow allowed --all --forget")
)
@click.option("--cwd", metavar="FOLDER", help="Only what runs in this folder may do.")
@click.option("--tool", metavar="NAME", help="Only what this tool may do.")
@click.option("--forget", is_flag=True, help="Take it back: it is asked for again.")
@click.option("--all", "everything", is_flag=True, help="With --forget: whatever the folder and the tool.")
@json_option
def command(cwd: str | None, tool: str | None, forget: bool, everything: bool, as_json: bool) -> None:
    """Show what was allowed with `approve --always` (or the key `a`), or take it back."""
    narrowed = cwd is not None or tool is not None
    if forget and narrowed == everything:
        raise click.UsageError("Say what to forget: --cwd FOLDER, --tool NAME, both of them, or --all.")
    folder = None if cwd is None else os.path.realpath(cwd)
    path = places().allowed
    chosen = [entry for entry in sorted(read_allowed(path)) if _fits(entry, folder, tool)]
    if forget and chosen:
        take_back(path, chosen)
    if as_json:
        for entry in chosen:
            out_json(structs.asdict(entry))
    elif forget:
        say(f"took back {plural(len(chosen), 'permission')}" if chosen else "there is nothing of the kind to take back")
    elif chosen:
        rows = [[(clean(e.workspace), ""), (clean(e.tool), "bold"), (e.risk, RISK_STYLES[e.risk])] for e in chosen]
        out("\n".join(table(_HEADERS, rows, colour=coloured(sys.stdout))))


def _fits(entry: Allowed, folder: str | None, tool: str | None) -> bool:
    return folder in (None, entry.workspace) and tool in (None, entry.tool)
