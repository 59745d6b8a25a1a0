"""The settings in force, and where each value comes from.

They merge in this order, later wins: the defaults of ``settings.py``, ``config.toml``, ``SPARROW_*``, the command line's flags.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from sparrow_mp.errors import ConfigError
from sparrow_mp.settings import (
    NAMED,
    SECTIONS,
    Changes,
    Config,
    NdjsonSettings,
    NotifySettings,
    RetentionSettings,
    RunSettings,
    Setting,
    SupervisorSettings,
    engine_settings,
    settings_of,
)

_MAX_FILE_BYTES = 64 << 10
"""A supervisor reads it while it serves: it takes 20 ms at most."""
_SHORT_NAMES = {"SPARROW_TCP": "ndjson.tcp"}
"""Variables with a name of their own; every setting has ``SPARROW_<SECTION>_<KEY>``, which goes before it."""


class Value(NamedTuple):
    """One setting's value. ``table`` is its section, or ``engines.NAME``; ``source`` is ``default``, a file or ``$NAME``."""

    table: str
    setting: Setting
    value: Any
    source: str


class Settings(NamedTuple):
    """What all sources together say, and what is wrong with them, a sentence each."""

    values: list[Value]
    faults: list[str]

    def config(self) -> Config:
        """The settings as the program uses them. Raises ConfigError for the first fault, saying how many more there are."""
        if self.faults:
            more = len(self.faults) - 1
            others = f" (and {more} more: see `sparrow config check`)" if more else ""
            raise ConfigError(self.faults[0] + others)
        tables: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        named: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in ("engines", *NAMED)}
        for table, setting, value, _ in self.values:
            section, dot, name = table.partition(".")
            where = named[section].setdefault(name, {}) if dot else tables[table]
            where[setting.key] = value
        return msgspec.convert({**tables, **named}, Config)


def load_config(path: Path, env: Mapping[str, str] | None = None) -> Config:
    """The settings in force. A file that is not there is empty.

    Raises ConfigError, naming file, line and key, for a file that cannot be read, broken TOML, an unknown key, a value of the
    wrong type or out of range.
    """
    return read_settings(path, env).config()


def read_settings(path: Path, env: Mapping[str, str] | None = None) -> Settings:
    """Every setting with its value and source, and all that is wrong. It raises nothing."""
    env = os.environ if env is None else env
    try:
        text = _read(path)
        table = tomllib.loads(text)
    except ConfigError as error:
        return Settings([], [error.message])
    except RecursionError:
        return Settings([], [f"{path} is not TOML: it is nested too deeply"])
    except ValueError as error:  # a TOMLDecodeError, or a number of thousands of digits
        return Settings([], [f"{path} is not TOML: {error}"])
    written = _Written(path, text, table)
    values = [*written.sections(env), *written.engines(), *written.named()]
    return Settings(values, written.faults)


class _Written:
    """A file that is TOML, with what it says."""

    def __init__(self, path: Path, text: str, table: dict[str, Any]) -> None:
        self._path = path
        self._text = text
        self._table = table
        self.faults: list[str] = []
        self._check_sections()

    def sections(self, env: Mapping[str, str]) -> Iterator[Value]:
        """The value of each setting."""
        for section in SECTIONS:
            known = settings_of(section)
            given = self._given(section, self._table.get(section, {}), known)
            for key, setting in known.items():
                value, source = setting.default, "default"
                if key in given:
                    value, source = given[key], str(self._path)
                for name in variables(setting):
                    if name in env:
                        value, source = self._variable(setting, name, env[name], value), f"${name}"
                yield Value(section, setting, value, source)

    def engines(self) -> Iterator[Value]:
        """What the engines' tables say."""
        tables = self._table.get("engines", {})
        for name, table in tables.items() if isinstance(tables, dict) else ():
            place = f"engines.{name}"
            known = engine_settings()
            for key, value in self._given(place, table, known).items():
                yield Value(place, known[key], value, str(self._path))

    def named(self) -> Iterator[Value]:
        """Every setting of each table that has a name."""
        for section in NAMED:
            tables = self._table.get(section, {})
            for name, table in tables.items() if isinstance(tables, dict) else ():
                place = f"{section}.{name}"
                known = settings_of(section)
                given = self._given(place, table, known)
                for key, setting in known.items():
                    yield Value(place, setting, given.get(key, setting.default), self._source(key in given))

    def _source(self, given: bool) -> str:
        return str(self._path) if given else "default"

    def _given(self, place: str, table: Any, known: Mapping[str, Setting]) -> dict[str, Any]:
        """The good values of a table."""
        given: dict[str, Any] = {}
        if not isinstance(table, dict):
            self._fault(place, "", f"`{place}` is a table; write it as [{place}]")
            return given
        for key, raw in table.items():
            if key not in known:
                self._fault(place, key, f"unknown key `{place}.{key}`{_nearest(key, list(known))}")
                continue
            try:
                given[key] = _checked(known[key], raw)
            except ValueError as error:
                words = str(error).replace(f"`{known[key].name}`", f"`{place}.{key}`", 1)
                self._fault(place, key, words)
        return given

    def _variable(self, setting: Setting, name: str, text: str, otherwise: Any) -> Any:
        try:
            return _checked(setting, text, text=True)
        except ValueError as error:
            self.faults.append(f"the variable {name}: {error}")
            return otherwise

    def _check_sections(self) -> None:
        known = [field.name for field in msgspec.structs.fields(Config)]
        for name, table in self._table.items():
            if name not in known:
                self._fault(name, "", f"unknown key `{name}`{_nearest(name, known)}")
            elif name in ("engines", *NAMED) and not isinstance(table, dict):
                self._fault(name, "", f"`{name}` is a table; write it as [{name}.NAME]")

    def _fault(self, place: str, key: str, words: str) -> None:
        line = line_of(self._text, place, key)
        self.faults.append(f"{self._path}{f', line {line}' if line else ''}: {words}")


def changed(old: Config, new: Config, when: Changes | None = None) -> list[str]:
    """The names of the settings that differ; only those whose changes count then, where that is said."""
    names = []
    for section in SECTIONS:
        before, after = getattr(old, section), getattr(new, section)
        for key, setting in settings_of(section).items():
            if when in (None, setting.changes) and getattr(before, key) != getattr(after, key):
                names.append(setting.name)
    if when in (None, Changes.NEW_RUNS):
        for engine in sorted({*old.engines, *new.engines}):
            before, after = old.engines.get(engine, {}), new.engines.get(engine, {})
            names += [f"engines.{engine}.{key}" for key in engine_settings() if before.get(key) != after.get(key)]
        for section in NAMED:
            before, after = getattr(old, section), getattr(new, section)
            names += [f"{section}.{name}" for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return names


def variables(setting: Setting) -> list[str]:
    """The environment variables that set it; a later one goes before an earlier one."""
    short = [name for name, target in _SHORT_NAMES.items() if target == setting.name]
    return [*short, f"SPARROW_{setting.section}_{setting.key}".upper()]


def _read(path: Path) -> str:
    """The file's text; none where there is no file. Neither a pipe nor a device keeps us. Raises ConfigError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # a NUL in the path
        raise ConfigError(f"cannot read {path}: {error}") from None
    try:
        with open(fd, "rb", buffering=0) as file:
            mode = os.fstat(fd).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
                raise ConfigError(f"cannot read {path}: it is neither a file nor /dev/null")
            data = file.read(_MAX_FILE_BYTES + 1) or b""
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {os.strerror(error.errno or errno.EIO)}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"cannot read {path}: it has more than {_MAX_FILE_BYTES} bytes, which no settings take")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path} is not TOML: line {line} is not UTF-8") from None


def _checked(setting: Setting, raw: Any, *, text: bool = False) -> Any:
    value = setting.read(raw, text=text)
    if setting.name == "ndjson.tcp" and value:
        _split(value)
    return value


def split_address(address: str, path: Path) -> tuple[str, int]:
    """``HOST:PORT`` as the two of them. Raises ConfigError where it is none, or not on the loopback."""
    try:
        return _split(address)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _split(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    host = host.strip("[]")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"`ndjson.tcp` is `{address}`; write HOST:PORT, such as 127.0.0.1:9337, or leave it empty")
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError(f"`ndjson.tcp` is `{address}`; sparrow listens on this machine only: use 127.0.0.1 or [::1]")
    return host, int(port)


def line_of(text: str, place: str, key: str) -> int | None:
    """The line that a key of a table is on, from 1, or the table's own; None where that cannot be told from the lines."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            table = ".".join(_bare(part) for part in found[1].split("."))
            if not key and table == place:
                return number
        elif found := re.match(r"\s*([^=#\[]+?)\s*=", line):
            name = ".".join(_bare(part) for part in found[1].split("."))
            whole = f"{table}.{name}" if table else name
            if whole == (f"{place}.{key}" if key else place):
                return number
    return None


def _bare(part: str) -> str:
    return part.strip().strip("\"'")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; the known ones are {', '.join(known)}"


__all__ = [
    "Config",
    "NdjsonSettings",
    "NotifySettings",
    "RetentionSettings",
    "RunSettings",
    "Settings",
    "SupervisorSettings",
    "Value",
    "changed",
    "line_of",
    "load_config",
    "read_settings",
    "split_address",
    "variables",
]
