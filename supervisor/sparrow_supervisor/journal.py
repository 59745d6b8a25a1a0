"""Logs to systemd's journal, where standard error is that: with priorities, and with the run's id as a field of its own.

The native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram an entry, NAME=value lines; a value with a line break
is written as NAME, a line break, its length as 64 bits little-endian, the value. So ``journalctl SPARROW_RUN=ID`` is a run's
story. Where the journal takes no datagram, the line goes to standard error with the ``<N>`` that says its priority.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
_RUN_FIRST = "run %s"
"""How messages begin whose first argument is a run's id."""
_LONGEST = 48 * 1024
"""Bytes of a message: a datagram has its limits, and nobody reads more."""


def is_journal(env: Mapping[str, str], fd: int = 2) -> bool:
    """Whether the descriptor is the journal's stream: JOURNAL_STREAM names its device and inode."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return env.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def priority(level: int) -> int:
    """syslog's number for a level of logging."""
    return next(number for least, number in _PRIORITIES if level >= least)


class JournalHandler(logging.Handler):
    """Sends each record to the journal. Never waits for it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send it, or write it to standard error."""
        try:
            message = self.format(record)
            if not _send(entry(record, message)):
                sys.stderr.write("".join(f"<{priority(record.levelno)}>{line}\n" for line in message.splitlines()))
        except Exception:  # logging's rule: a record that cannot be written ends nothing
            self.handleError(record)


def entry(record: logging.LogRecord, message: str) -> bytes:
    """The datagram."""
    fields = {
        "MESSAGE": message.encode("utf-8", "replace")[:_LONGEST],
        "PRIORITY": str(priority(record.levelno)).encode(),
        "SYSLOG_IDENTIFIER": b"sparrow",
        "CODE_FILE": record.pathname.encode("utf-8", "replace"),
        "CODE_LINE": str(record.lineno).encode(),
    }
    if isinstance(record.msg, str) and record.msg.startswith(_RUN_FIRST) and isinstance(record.args, tuple):
        fields["SPARROW_RUN"] = str(record.args[0]).encode("utf-8", "replace")
    return b"".join(_field(name.encode(), value) for name, value in fields.items())


def _field(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return name + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name + b"=" + value + b"\n"


def _send(data: bytes) -> bool:
    try:
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        ) as connection:
            connection.sendto(data, SOCKET)
    except OSError:
        return False
    return True
