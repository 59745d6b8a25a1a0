"""`sparrow config`: the settings, and where each comes from."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import click
import msgspec

from sparrow_mp.cli.common import example, json_option, places
from sparrow_mp.cli.output import Span, coloured, out, out_json
from sparrow_mp.cli.table import table
from sparrow_mp.config import load_config


@click.group(epilog=example("sparrow config show", "sparrow config check", "$EDITOR $(sparrow config path)"))
def command() -> None:
    """Show or check the settings. They merge: defaults, the file, SPARROW_* variables, flags; later wins."""


@command.command(epilog=example("sparrow config show", "sparrow config show --json"))
@json_option
def show(as_json: bool) -> None:
    """Show every setting, its value, and where that comes from."""
    rows = list(settings())
    if as_json:
        for row in rows:
            out_json(row)
        return
    lines: list[list[Span]] = [
        [(row["key"], "bold"), (msgspec.json.encode(row["value"]).decode(), ""), (row["source"], "dim")] for row in rows
    ]
    out("\n".join(table(("SETTING", "VALUE", "FROM"), lines, colour=coloured(sys.stdout))))


@command.command(epilog=example("sparrow config check"))
def check() -> None:
    """Check the file and the variables; exits 2 where something is wrong, and says what."""
    path = places().config
    load_config(path)
    out(f"{path}: {'no fault found' if path.exists() else 'there is no such file, so the defaults are in force'}")


@command.command(epilog=example("sparrow config path"))
def path() -> None:
    """Print where the configuration file is, or would be."""
    out(str(places().config))


def settings() -> Iterator[dict[str, Any]]:
    """Every setting as {key, value, source}. Raises ConfigError."""
    file = places().config
    config = load_config(file)
    try:
        written: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        written = {}
    for section in msgspec.structs.fields(config):
        values = getattr(config, section.name)
        for field in msgspec.structs.fields(values):
            source = "default"
            if field.name in written.get(section.name, {}):
                source = str(file)
            variables = [f"SPARROW_{section.name}_{field.name}".upper()]
            if (section.name, field.name) == ("ndjson", "tcp"):
                variables.append("SPARROW_TCP")
            source = next((f"${name}" for name in variables if name in os.environ), source)
            yield {"key": f"{section.name}.{field.name}", "value": getattr(values, field.name), "source": source}
