"""What a run's folder says of its end."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sparrow_mp.regular import read_regular
from sparrow_mp.run.outbox import Outbox
from sparrow_mp.wire import ExitReport

_MOST_BYTES = 16 << 20
"""A report has what the engine returned in it, which is an event's size at most."""


def exit_report(folder: Path) -> ExitReport | None:
    """The monitor's report; None where it did not get to write one."""
    try:
        return msgspec.json.decode(read_regular(folder / "exit.json", _MOST_BYTES), type=ExitReport)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


def unfinished_report(folder: Path, run: str) -> ExitReport | None:
    """What a monitor left that was killed after its engine had ended; None where the engine had not, as far as is known."""
    try:
        outbox = Outbox(folder / "outbox", run)
    except (OSError, ValueError):
        return None
    status = outbox.engine_status
    outbox.close()
    if status is None:
        return None
    return ExitReport(wait_status=status, reason="its monitor was killed before it could report")


def reaped_status(folder: Path) -> int | None:
    """The monitor's wait status as a zygote wrote it down; None where none did."""
    try:
        return int(read_regular(folder / "reaped", 32))
    except (OSError, ValueError):
        return None
