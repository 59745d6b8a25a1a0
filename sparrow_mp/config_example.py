"""The commented example of a configuration file. It is made of the schema, so it says all that can be set, and nothing else."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import msgspec

from sparrow_mp.settings import NAMED, NOT_FOR_ENGINES, SECTIONS, Changes, Section, Setting, Unit, settings_of

_WIDTH = 104
_HEAD = """\
The settings of sparrow. None are needed: each is shown with its default, and counts where its `#` is taken away.
A variable SPARROW_<SECTION>_<KEY>, such as SPARROW_RUN_GRACE=30s, goes before what is written here.
Seconds and days may be written as "90s", "5m", "1h30m" or "30d", bytes as "512K", "100M" or "2G".
A supervisor that runs reads this file again a moment after it has changed, at SIGHUP and at
`sparrow reload`. Changes count at once where nothing else is said.
`sparrow config check` says what is wrong with it, `sparrow config show` where each value comes from."""
_ENGINES = f"""\
For the runs of one engine: any key of [run] but {" and ".join(sorted(NOT_FOR_ENGINES))}. It goes before [run]."""


def config_example() -> str:
    """The file's text. As it stands it sets nothing."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from _comment(_HEAD)
    for section, kind in SECTIONS.items():
        yield from _table(f"[{section}]", section, kind)
        if section == "run":
            yield ""
            yield from _comment(_ENGINES)
            yield "#[engines.shell]"
            yield '#timeout = "2h"'
    for section, kind in NAMED.items():
        yield from _table(f"#[{section}.NAME]", section, kind)


def _table(head: str, section: str, kind: type[Section]) -> Iterator[str]:
    yield ""
    yield from _comment(inspect.getdoc(kind) or "")
    yield head
    for setting in settings_of(section).values():
        yield ""
        yield from _comment(meaning(setting))
        yield f"#{setting.key} = {toml(setting.default, setting)}"


def meaning(setting: Setting) -> str:
    """What a setting is, what may be written, and when a change of it counts."""
    facts = []
    if setting.choices:
        facts.append(("any of " if isinstance(setting.default, list) else "") + ", ".join(setting.choices))
    if setting.unit is not Unit.NONE:
        facts.append(setting.unit.value)
    if setting.least:
        facts.append(f"at least {toml(setting.least, setting)}")
    if setting.changes is not Changes.NOW:
        facts.append(f"a change counts {setting.changes.value}")
    return f"{setting.description} ({'; '.join(facts)})" if facts else setting.description


def toml(value: Any, setting: Setting) -> str:
    """A value as TOML, where JSON is TOML as well; a size with its unit, where nothing is lost by that."""
    if setting.unit is Unit.BYTES and value:
        for unit, size in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
            if value % size == 0:
                return f'"{value // size}{unit}"'
    if isinstance(value, dict):
        pairs = (f"{msgspec.json.encode(key).decode()} = {toml(inner, setting)}" for key, inner in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return msgspec.json.encode(value).decode().replace('","', '", "')


def _comment(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from (f"# {part}" for part in textwrap.wrap(line, _WIDTH - 2))
