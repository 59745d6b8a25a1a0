"""What a model says, as it comes, gathered to events that people can watch grow: by the line, and not by the word."""

from __future__ import annotations

from collections.abc import Callable

from sparrow_mp.events import Event, Message, ThinkingDelta

_SOON_S = 1.0
"""A whole line is told this long after the last event."""
_LATE_S = 4.0
"""And a part of one after this."""
_LONGEST = 100_000


class Speech:
    """Text in pieces on one side, events on the other. All events' texts together are all that was said."""

    def __init__(self, emit: Callable[[Event], None], clock: Callable[[], float]) -> None:
        self._emit = emit
        self._clock = clock
        self._said = ""
        self._thinks = False
        self._since = 0.0

    def say(self, text: str, *, thinks: bool = False) -> None:
        """A piece has come."""
        if thinks != self._thinks:
            self.flush()
        self._thinks = thinks
        if not self._said:
            self._since = self._clock()
        self._said += text
        waited = self._clock() - self._since
        if len(self._said) > _LONGEST:
            self.flush()
        elif waited > _SOON_S and "\n" in self._said:
            self._tell(self._said.rindex("\n") + 1)
        elif waited > _LATE_S and " " in self._said:
            self._tell(self._said.rindex(" ") + 1)

    def flush(self) -> None:
        """The part has ended: what is left of it is an event."""
        self._tell(len(self._said))

    def _tell(self, length: int) -> None:
        text, self._said = self._said[:length], self._said[length:]
        self._since = self._clock()
        if not text.strip():
            self._said = text + self._said if self._said else ""
            return
        for start in range(0, len(text), _LONGEST):
            part = text[start : start + _LONGEST]
            self._emit(ThinkingDelta(text=part) if self._thinks else Message(role="assistant", text=part))
