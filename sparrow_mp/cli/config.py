"""`sparrow config`: the settings, and where each comes from."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from sparrow_mp.cli.common import example, json_option, places
from sparrow_mp.cli.output import Span, coloured, on_terminal, out, out_json, say
from sparrow_mp.cli.table import table
from sparrow_mp.config import Value, read_settings
from sparrow_mp.config_example import config_example, toml

_SOURCE = 2


@click.group(epilog=example("sparrow config show", "sparrow config check", "$EDITOR $(sparrow config path)"))
def command() -> None:
    """Show or check the settings. They merge: defaults, the file, SPARROW_* variables, flags; later wins."""


@command.command(epilog=example("sparrow config show", "sparrow config show --changed", "sparrow config show --json"))
@click.option("--changed", is_flag=True, help="Only those that are not the default.")
@json_option
def show(changed: bool, as_json: bool) -> None:
    """Show every setting, its value, and where that comes from."""
    found = read_settings(places().config)
    found.config()
    values = [value for value in found.values if not changed or value.source != "default"]
    if as_json:
        for value in values:
            out_json(_row(value))
        return
    lines: list[list[Span]] = [
        [(f"{value.table}.{value.setting.key}", "bold"), (toml(value.value, value.setting), ""), (value.source, "dim")]
        for value in values
    ]
    width = shutil.get_terminal_size().columns if on_terminal(sys.stdout) else None
    out(
        "\n".join(table(("SETTING", "VALUE", "FROM"), lines, elastic=_SOURCE, width=width, colour=coloured(sys.stdout)))
    )


@command.command(epilog=example("sparrow config check", "sparrow config check ./new.toml"))
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """Check a file, else the one in use, with the variables that are set here. Exits 1 and says all that is wrong."""
    path = file or places().config
    if file is not None and not file.exists():
        raise click.UsageError(f"There is no file {file}.")
    faults = read_settings(path).faults
    for fault in faults:
        say(fault)
    if faults:
        raise click.exceptions.Exit(1)
    out(f"{path}: {'no fault found' if path.exists() else 'there is no such file, so the defaults are in force'}")


@command.command(name="example", epilog=example("sparrow config example > $(sparrow config path)"))
def print_example() -> None:
    """Print a configuration file that says all there is to set, each with its meaning and its default."""
    out(config_example().rstrip("\n"))


@command.command(epilog=example("sparrow config path"))
def path() -> None:
    """Print where the configuration file is, or would be."""
    out(str(places().config))


def _row(value: Value) -> dict[str, Any]:
    return {
        "key": f"{value.table}.{value.setting.key}",
        "value": value.value,
        "source": value.source,
        "default": value.setting.default,
        "changes": value.setting.changes.name.lower(),
    }
