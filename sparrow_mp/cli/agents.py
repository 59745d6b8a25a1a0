"""`sparrow agents`: the coding agents that the engine `acp` knows, and which of them are here."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from sparrow_mp.agents import AgentMissing, Profile, installed, profiles
from sparrow_mp.cli.common import example, json_option, places
from sparrow_mp.cli.output import Span, coloured, out, out_json, say
from sparrow_mp.cli.table import table
from sparrow_mp.cli.words import one_line
from sparrow_mp.config import load_config
from sparrow_mp.errors import ConfigError

_PATIENCE_S = 10.0
_WIDEST = 40
_HEADERS = ("AGENT", "NAME", "VERSION", "COMMAND, OR HOW TO GET IT")


@click.command(epilog=example("sparrow agents", 'sparrow run -e acp --agent opencode "fix the failing test"'))
@json_option
def command(as_json: bool) -> None:
    """Show the coding agents that sparrow knows by name: which are installed, and how to get the others.

    Any other command that speaks the Agent Client Protocol is named by its command line: --agent "my-agent --acp".
    """
    try:
        known = profiles(load_config(places().config).agents)
    except AgentMissing as error:
        raise ConfigError(str(error)) from None
    with ThreadPoolExecutor(len(known)) as threads:  # each is asked for its version, and some take seconds
        found = list(threads.map(_look, known.values()))
    if as_json:
        for row in found:
            out_json(row)
        return
    out("\n".join(table(_HEADERS, [_cells(row) for row in found], colour=coloured(sys.stdout))))
    if importlib.util.find_spec("acp") is None:
        say("the engine `acp` needs its library: pip install 'sparrow-mp[acp]'")


def _look(profile: Profile) -> dict[str, Any]:
    command = installed(profile, shutil.which)
    return {
        "agent": profile.name,
        "name": profile.title,
        "installed": command is not None,
        "version": _version(command[0]) if command is not None else None,
        "command": command,
        "install": profile.install,
        "login": profile.login,
    }


def _version(program: str) -> str | None:
    """What it says to --version; None where that is nothing that makes sense."""
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return one_line(said[-1], _WIDEST) if done.returncode == 0 and said else None


def _cells(row: dict[str, Any]) -> list[Span]:
    if not row["installed"]:
        return [(text, "dim") for text in (row["agent"], row["name"], "not installed", row["install"])]
    return [(row["agent"], "bold"), (row["name"], ""), (row["version"] or "?", "green"), (" ".join(row["command"]), "")]
