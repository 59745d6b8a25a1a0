"""The settings: one typed schema, and where each value comes from.

They merge in this order, later wins: the defaults below, ``config.toml``, ``SPARROW_*``, the command line's flags.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from sparrow_mp.errors import ConfigError


class Section(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration file."""


class RunSettings(Section, kw_only=True):
    """[run]: what a run has where the request does not say."""

    engine: str = "shell"
    grace: float = 10.0
    """Seconds from SIGTERM to SIGKILL."""
    outbox_bytes: int = 8 << 20
    """How much a run may have emitted that is not recorded yet; past it ``emit()`` waits."""


class SupervisorSettings(Section, kw_only=True):
    """[supervisor]: the daemon."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    max_runs: int = 0
    """How many runs may be alive at once; 0 is no limit. Further ones are queued."""
    max_queue: int = 10_000
    fsync: Literal["batch", "always", "never"] = "batch"
    """When transcripts are forced to the disk: within 50 ms, before anything is published, or as the kernel likes."""


class NdjsonSettings(Section, kw_only=True):
    """[ndjson]: the adapters. ``tcp`` empty switches TCP off; ``unix`` empty is ``<state>/sparrow.sock``."""

    tcp: str = "127.0.0.1:9337"
    unix: str = ""
    stall_timeout: float = 600.0
    """Seconds after which a client that takes nothing at all is closed."""


class Config(Section, kw_only=True):
    """All settings."""

    run: RunSettings = msgspec.field(default_factory=RunSettings)
    supervisor: SupervisorSettings = msgspec.field(default_factory=SupervisorSettings)
    ndjson: NdjsonSettings = msgspec.field(default_factory=NdjsonSettings)


_SHORT_NAMES = {"SPARROW_TCP": ("ndjson", "tcp")}
"""Variables with a name of their own; every other setting is ``SPARROW_<SECTION>_<KEY>``."""


def load_config(path: Path, env: Mapping[str, str] | None = None) -> Config:
    """The settings in force. A file that is not there is empty.

    Raises ConfigError, naming file and key, for broken TOML, an unknown key, a value of the wrong type or out of range.
    """
    env = os.environ if env is None else env
    try:
        text = path.read_text(encoding="utf-8")
        table: dict[str, Any] = tomllib.loads(text)
    except FileNotFoundError:
        table = {}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    _check_keys(table, path)
    try:
        msgspec.convert(table, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_where(error)}") from None
    for name, (section, key) in _variables().items():
        if name in env:
            table.setdefault(section, {})[key] = env[name]
            try:
                msgspec.convert({section: {key: env[name]}}, Config, strict=False)
            except msgspec.ValidationError as error:
                raise ConfigError(f"the variable {name}: {_where(error)}") from None
    config = msgspec.convert(table, Config, strict=False)
    _check_values(config, path)
    return config


def _variables() -> dict[str, tuple[str, str]]:
    """Every environment variable that sets something."""
    names = dict(_SHORT_NAMES)
    for section in msgspec.structs.fields(Config):
        for key in msgspec.structs.fields(section.type):
            names[f"SPARROW_{section.name}_{key.name}".upper()] = (section.name, key.name)
    return names


def _check_keys(table: dict[str, Any], path: Path) -> None:
    sections = {field.name: field.type for field in msgspec.structs.fields(Config)}
    for section, values in table.items():
        if section not in sections:
            raise ConfigError(f"{path}: unknown key `{section}`{_nearest(section, list(sections))}")
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: `{section}` is a table; write it as [{section}]")
        known = [field.name for field in msgspec.structs.fields(sections[section])]
        for key in values:
            if key not in known:
                raise ConfigError(f"{path}: unknown key `{section}.{key}`{_nearest(key, known)}")


def _check_values(config: Config, path: Path) -> None:
    if config.ndjson.tcp:
        split_address(config.ndjson.tcp, path)
    for name, value, least in (
        ("run.grace", config.run.grace, 0.0),
        ("run.outbox_bytes", config.run.outbox_bytes, 2 << 20),
        ("supervisor.max_runs", config.supervisor.max_runs, 0),
        ("supervisor.max_queue", config.supervisor.max_queue, 0),
        ("ndjson.stall_timeout", config.ndjson.stall_timeout, 1.0),
    ):
        if not least <= value < math.inf:  # which no comparison with a NaN passes
            raise ConfigError(f"{path}: `{name}` is {value}; the least is {least}")


def split_address(address: str, path: Path) -> tuple[str, int]:
    """``HOST:PORT`` as the two of them. Raises ConfigError where it is none, or not on the loopback."""
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ConfigError(
            f"{path}: `ndjson.tcp` is `{address}`; write HOST:PORT, such as 127.0.0.1:9337, or leave it empty"
        )
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(
            f"{path}: `ndjson.tcp` is `{address}`; sparrow listens on this machine only: use 127.0.0.1 or [::1]"
        )
    return host, int(port)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; the known ones are {', '.join(known)}"


def _where(error: msgspec.ValidationError) -> str:
    """msgspec's words with the key said the way TOML says it."""
    words, _, place = str(error).partition(" - at `$.")
    return f"`{place.rstrip('`')}`: {words}" if place else words


__all__ = ["Config", "NdjsonSettings", "RunSettings", "SupervisorSettings", "load_config", "split_address"]
