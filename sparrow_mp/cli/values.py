"""Values as people type them: durations, sizes, moments, environment variables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import click

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)(?:i?B)?", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``5m``, ``2h``, ``30d`` or parts together, ``1h30m``. Raises ValueError."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _PARTS.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"`{text}` is no duration; write seconds, or 90s, 5m, 2h, 30d")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def parse_size(text: str) -> int:
    """Bytes from ``4096``, ``512K``, ``1.5G``; a K is 1024. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"`{text}` is no size; write bytes, or 512K, 100M, 2G")
    return int(float(found[1]) * _BYTES[found[2].upper()])


def parse_since(text: str, now: datetime | None = None) -> int | str:
    """A seq (``120``), a time (RFC 3339; without a zone it is local) or a duration back from now (``5m``).

    Returns the seq, or the time as RFC 3339 in UTC. Raises ValueError.
    """
    text = text.strip()
    if text.isdigit():
        return int(text)
    now = datetime.now(UTC) if now is None else now
    try:
        return rfc3339(now - timedelta(seconds=parse_duration(text)))
    except (ValueError, OverflowError):
        pass
    try:
        return rfc3339(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise ValueError(
            f"`{text}` is no place to begin; write a seq (120), a duration back (5m) or an RFC 3339 time"
        ) from None


def rfc3339(moment: datetime) -> str:
    """The moment as events bear it: UTC, microseconds; without a zone it is local time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_env(given: Iterable[str], caller: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment with what ``--env`` says. Raises ValueError for a bad name, or one that is not set."""
    env = dict(caller)
    for item in given:
        name, equals, value = item.partition("=")
        if not name or "\0" in item:
            raise ValueError(f"`{item}` is no variable; write NAME=VALUE, or NAME for the one that is set here")
        if equals:
            env[name] = value
        elif name not in env:
            raise ValueError(f"{name} is not set here; set it, or give its value: --env {name}=VALUE")
    return env


class Duration(click.ParamType[float]):
    """A duration on the command line, in seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See parse_duration."""
        try:
            return parse_duration(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Size(click.ParamType[int]):
    """A size on the command line, in bytes."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See parse_size."""
        try:
            return parse_size(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Since(click.ParamType["int | str"]):
    """Where to begin in a record: a seq, a time or a duration back from now."""

    name = "since"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """See parse_since."""
        try:
            return parse_since(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()
SIZE = Size()
SINCE = Since()
