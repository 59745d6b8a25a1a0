"""What a run prints, turned into lines: bytes in, pieces of text out. Pure."""

from __future__ import annotations

LINE_LIMIT = 64 << 10
"""The longest piece, in bytes of UTF-8; a longer line is split."""


class LineSplitter:
    """Splits one stream. A piece is its text and whether more of the same line follows (``partial``)."""

    def __init__(self) -> None:
        self._pending = b""
        self._open = False

    @property
    def unfinished(self) -> bool:
        """Whether there are bytes that no line break has followed yet."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[tuple[str, bool]]:
        """The pieces that these bytes complete."""
        head, found, rest = data.rpartition(b"\n")
        pieces: list[tuple[str, bool]] = []
        if found:
            whole = self._pending + head
            self._pending = rest
            lines = whole.split(b"\n") if len(whole) > LINE_LIMIT else None
            if lines is None or max(map(len, lines)) <= LINE_LIMIT:
                pieces = [(text, False) for text in whole.decode("utf-8", "replace").split("\n")]
            else:
                for line in lines:
                    pieces += self._split(line)
            self._open = False
        else:
            self._pending += data
        if len(self._pending) > LINE_LIMIT:
            *parts, self._pending = _cut(self._pending)
            pieces += [(part.decode("utf-8", "replace"), True) for part in parts]
            self._open = True
        return pieces

    def flush(self) -> list[tuple[str, bool]]:
        """What there is of an unfinished line (a prompt); a character that is not complete is kept."""
        keep = _incomplete(self._pending)
        ready = self._pending[: len(self._pending) - keep]
        self._pending = self._pending[len(ready) :]
        if not ready:
            return []
        self._open = True
        return [(ready.decode("utf-8", "replace"), True)]

    def finish(self) -> list[tuple[str, bool]]:
        """The end of the stream: the last line where it had no line break."""
        pieces = self._split(self._pending) if self._pending or self._open else []
        self._pending = b""
        self._open = False
        return pieces

    @staticmethod
    def _split(line: bytes) -> list[tuple[str, bool]]:
        *parts, last = _cut(line)
        return [*((part.decode("utf-8", "replace"), True) for part in parts), (last.decode("utf-8", "replace"), False)]


def _cut(line: bytes) -> list[bytes]:
    """Parts of at most the limit, none of which ends within a character."""
    parts = []
    start = 0
    while len(line) - start > LINE_LIMIT:
        part = line[start : start + LINE_LIMIT]
        end = start + LINE_LIMIT - _incomplete(part)
        parts.append(line[start:end])
        start = end
    return [*parts, line[start:]]


def _incomplete(data: bytes) -> int:
    """How many bytes at the end are the beginning of a UTF-8 character whose rest is still to come."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4 if byte < 0xF8 else 0
            return back if needed > back else 0
        if byte < 0x80:
            return 0
    return 0
