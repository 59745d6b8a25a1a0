"""What a run's folder says of its end."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sparrow_mp.wire import ExitReport


def exit_report(folder: Path) -> ExitReport | None:
    """The monitor's report; None where it did not get to write one."""
    try:
        return msgspec.json.decode((folder / "exit.json").read_bytes(), type=ExitReport)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


def reaped_status(folder: Path) -> int | None:
    """The monitor's wait status as a zygote wrote it down; None where none did."""
    try:
        return int((folder / "reaped").read_text())
    except (OSError, ValueError):
        return None
