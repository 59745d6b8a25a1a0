"""How quantities and ends of runs are said, and the exit code that an end stands for."""

from __future__ import annotations

from datetime import UTC, datetime

from sparrow_mp.wire import RunRecord

_EXIT_CODES = {"completed": 0, "interrupted": 130, "timed_out": 124, "out_of_memory": 137}
_ASKED_TO_END = ("interrupted", "timed_out", "over_budget", "out_of_memory", "over_limit")
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c")


def exit_code(status: str, code: int | None, killed_by: int | None) -> int:
    """What `sparrow run` and `sparrow wait` exit with for a run that ended so."""
    if status in _EXIT_CODES:
        return _EXIT_CODES[status]
    if status == "rejected":
        return code or 1
    if killed_by:
        return 128 + killed_by
    return (code or 0) & 0xFF or 1


def exit_code_of(record: RunRecord) -> int:
    """The same of a run's record."""
    return exit_code(record.status, record.exit_code, record.signal)


def ending(status: str, code: int | None, killed_by: int | None, reason: str | None) -> str:
    """How a run ended and why, in a few words: ``crashed: signal 9 (SIGKILL)``. Safe to show."""
    why = [reason] if reason else []
    if killed_by and status not in _ASKED_TO_END:
        why.append(f"signal {killed_by}{_signal_name(killed_by)}")
    elif code and status not in ("completed", "rejected"):
        why.append(f"exit code {code}")
    return clean(f"{status.replace('_', ' ')}{': ' if why else ''}{', '.join(why)}")


def ending_of(record: RunRecord) -> str:
    """The same of a run's record."""
    return ending(record.status, record.exit_code, record.signal, record.reason)


def short(run: str) -> str:
    """A run's id as people read it."""
    return run[:8]


def short_ids(runs: list[str]) -> dict[str, str]:
    """The shortest prefix of 8 or more that no other of these runs has."""
    ordered = sorted(runs)
    shortest: dict[str, str] = {}
    for n, run in enumerate(ordered):
        length = 8
        for near in ordered[max(0, n - 1) : n] + ordered[n + 1 : n + 2]:
            while near != run and length < len(run) and near.startswith(run[:length]):
                length += 1
        shortest[run] = run[:length]
    return shortest


def duration(seconds: float) -> str:
    """``850 ms``, ``3.2 s``, ``4 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def age(since: str, now: datetime | None = None) -> str:
    """How long ago a time was, in one unit: ``12s``, ``4m``, ``3h``, ``2d``; `-` where it is no time."""
    seconds = seconds_since(since, now)
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(max(0, seconds))}s"


def seconds_since(since: str, now: datetime | None = None) -> float | None:
    """Seconds from an RFC 3339 time until now; None where it is none."""
    try:
        then = datetime.fromisoformat(since)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return ((datetime.now(UTC) if now is None else now) - then).total_seconds()


def size(count: float | None) -> str:
    """Bytes in the unit that fits: ``812 K``, ``3.4 M``."""
    if count is None:
        return "-"
    for unit in ("B", "K", "M", "G"):
        if count < 1024 or unit == "G":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"


def money(usd: float) -> str:
    """US dollars, with more digits where it is little."""
    return f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def number(value: float) -> str:
    """A number without a superfluous `.0`."""
    return f"{int(value):,}" if value == int(value) else f"{value:,.2f}"


def plural(count: int, noun: str) -> str:
    """``1 run``, ``3 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def clean(text: str, *, keep: str = "\n\t") -> str:
    r"""The text with its control characters made visible (``\x1b``).

    What a run or its task contains may be written to deceive: to move the cursor, set the title, answer in the place of
    the terminal, or turn the reading direction.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char in keep or not _dangerous(char) else _visible(char) for char in text)


def one_line(text: str, width: int | None = None) -> str:
    """The text in one line without control characters, cut to so many columns."""
    flat = clean(" ".join(text.split()), keep="")
    if width is None or columns(flat) <= width:
        return flat
    used = 0
    for cut, char in enumerate(flat):
        used += columns(char)
        if used > width - 1:
            return flat[:cut] + "…"
    return flat


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _dangerous(char: str) -> bool:
    return char < " " or "\x7f" <= char < "\xa0" or char in _BIDI or "\ud800" <= char <= "\udfff"


def _visible(char: str) -> str:
    named = {"\r": "\\r", "\n": "\\n", "\t": "\\t"}
    code = ord(char)
    return named.get(char) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _signal_name(number: int) -> str:
    import signal

    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
