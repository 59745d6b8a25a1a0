"""What the verbs share: where the supervisor is, connecting to it, options that several have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sparrow_mp.cli.output import say
from sparrow_mp.paths import Places, find_places

if TYPE_CHECKING:
    from sparrow_mp.client import Client

F = TypeVar("F", bound=Callable[..., Any])


def places() -> Places:
    """Where state, runtime and configuration are, `--config` considered."""
    context = click.get_current_context(silent=True)
    config = context.find_root().params.get("config") if context is not None else None
    return find_places(os.environ, Path(config) if config else None)


def connect(*, no_start: bool = False) -> Client:
    """A client that starts a supervisor where none runs, unless that is forbidden."""
    from sparrow_mp.client import Client

    forbidden = no_start or os.environ.get("SPARROW_NO_START", "") not in ("", "0")
    return Client(places=places(), start=not forbidden, on_start=say)


def connect_running() -> Client:
    """A client for verbs that never start a supervisor."""
    from sparrow_mp.client import Client

    return Client(places=places(), start=False)


def no_start_option(function: F) -> F:
    """``--no-start``: do not start a supervisor."""
    return click.option(
        "--no-start",
        is_flag=True,
        help="Fail where no supervisor runs, instead of starting one (also SPARROW_NO_START=1).",
    )(function)


def json_option(function: F) -> F:
    """``--json``: rows for programs."""
    return click.option("--json", "as_json", is_flag=True, help="NDJSON: one object a row.")(function)


def example(*lines: str) -> str:
    """The part of a help text that shows how the command is used."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
