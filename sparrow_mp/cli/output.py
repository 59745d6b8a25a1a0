"""The streams and their colours. Data goes to standard output, words to the user to standard error."""

from __future__ import annotations

import os
import sys
from typing import Any

Span = tuple[str, str]
"""A piece of text and the name of its style (of SGR, or empty)."""

Line = list[Span]

SGR = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "bold red": "1;31",
    "bold cyan": "1;36",
}

STATUS_STYLES = {
    "queued": "yellow",
    "starting": "yellow",
    "running": "green",
    "waiting": "bold cyan",
    "stopping": "magenta",
    "completed": "dim",
    "interrupted": "yellow",
    "failed": "red",
    "crashed": "bold red",
    "timed_out": "red",
    "over_budget": "red",
    "out_of_memory": "red",
    "over_limit": "red",
    "rejected": "red",
    "lost": "bold red",
}


def out(text: str) -> None:
    """Data: one line to standard output."""
    write(sys.stdout, text + "\n")


def out_json(row: Any) -> None:
    """Data: one JSON object to standard output; bytes are JSON already."""
    if not isinstance(row, bytes):
        from msgspec.json import encode

        row = encode(row)
    write_bytes(sys.stdout, row + b"\n")


def say(sentence: str) -> None:
    """Words to the user: one line to standard error. Nobody listening is no reason to fail."""
    try:
        write(sys.stderr, f"sparrow: {sentence}\n")
    except OSError:
        pass


def answer(sentence: str) -> None:
    """The same after a key such as Ctrl-C, which a terminal shows (`^C`) without ending the line."""
    try:
        if on_terminal(sys.stderr):
            write(sys.stderr, "\n")
    except OSError:
        return
    say(sentence)


def write(stream: Any, text: str) -> None:
    """Write at once. UTF-8 whatever the locale says: events are."""
    write_bytes(stream, text.encode("utf-8", "replace"))


def write_bytes(stream: Any, data: bytes) -> None:
    """Write at once. A stream that is closed altogether (`>&-`) takes nothing."""
    if stream is None:
        return
    stream.buffer.write(data)
    stream.buffer.flush()


def drop_output() -> None:
    """Nobody reads any more: let nothing complain about it, the interpreter's last flush neither."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError, AttributeError):
            continue  # closed, or no file at all


def on_terminal(stream: Any) -> bool:
    """Whether a person looks at the stream."""
    return stream is not None and stream.isatty()


def coloured(stream: Any) -> bool:
    """Whether the stream takes colours and its user wants them."""
    return on_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(line: Line, colour: bool) -> str:
    """The line as text."""
    if not colour:
        return "".join(text for text, _ in line)
    return "".join(f"\x1b[{SGR[style]}m{text}\x1b[0m" if style and text else text for text, style in line)


def status_style(status: str, waiting: bool = False) -> str:
    """The style that says how a run is."""
    return STATUS_STYLES["waiting"] if waiting else STATUS_STYLES.get(status, "")
