"""Values as people type them on the command line: durations, sizes, moments, environment variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import click

from sparrow_mp.quantities import parse_duration, parse_size


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
