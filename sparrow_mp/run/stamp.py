"""The time as an event bears it: RFC 3339 in UTC with microseconds."""

from __future__ import annotations

import time

_MICROSECONDS = tuple(f"{number:03d}Z" for number in range(1000))


class Stamp:
    """Writes times. The part down to the millisecond is kept, since many events share it."""

    def __init__(self) -> None:
        self._since = -1000
        self._second = -1
        self._second_text = ""
        self._text = ""

    def at(self, microseconds: int) -> str:
        """A time in µs since 1970."""
        past = microseconds - self._since
        if 0 <= past < 1000:
            return self._text + _MICROSECONDS[past]
        second, fraction = divmod(microseconds, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self._since = microseconds - fraction % 1000
        self._text = f"{self._second_text}.{fraction // 1000:03d}"
        return self._text + _MICROSECONDS[fraction % 1000]


def timestamp(microseconds: int) -> str:
    """A time in µs since 1970 as an event bears it."""
    return Stamp().at(microseconds)
