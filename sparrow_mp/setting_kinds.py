"""What a setting says of itself: its meaning, its unit, its bounds, and when a change of it counts."""

from __future__ import annotations

import enum

from msgspec import Meta, Struct


class Changes(enum.Enum):
    """When a change counts in a supervisor that runs."""

    NOW = "at once"
    NEW_RUNS = "for new runs"
    AT_START = "at the next start"


class Unit(enum.Enum):
    """What a number counts."""

    SECONDS = "seconds"
    BYTES = "bytes"
    DAYS = "days"
    USD = "US dollars"
    NONE = ""


NOW, NEW_RUNS, AT_START = Changes.NOW, Changes.NEW_RUNS, Changes.AT_START
_MOST_SECONDS = 1e9
_MOST = 1 << 60


def seconds(description: str, changes: Changes, least: float = 0.0) -> Meta:
    """A time."""
    return Meta(description=description, ge=least, le=_MOST_SECONDS, extra={"unit": Unit.SECONDS, "changes": changes})


def size(description: str, changes: Changes, least: int = 0, most: int = _MOST) -> Meta:
    """A number of bytes."""
    return Meta(description=description, ge=least, le=most, extra={"unit": Unit.BYTES, "changes": changes})


def count(description: str, changes: Changes, least: int = 0, most: int = _MOST) -> Meta:
    """A number of things."""
    return Meta(description=description, ge=least, le=most, extra={"unit": Unit.NONE, "changes": changes})


def number(description: str, changes: Changes, unit: Unit = Unit.NONE) -> Meta:
    """Any number that is not negative."""
    return Meta(description=description, ge=0.0, le=1e12, extra={"unit": unit, "changes": changes})


def plain(description: str, changes: Changes) -> Meta:
    """A text, a choice, a list or a switch."""
    return Meta(description=description, extra={"unit": Unit.NONE, "changes": changes})


class Section(Struct, forbid_unknown_fields=True, kw_only=True):
    """A table of the configuration file. The docstring of each is what the example says of it."""
