"""The zygote of a supervisor that systemd has started: systemd starts that too, so it is looked for, and never started here.

One exception is an upgrade. The unit of the runs then still has the zygote of the other sparrow; it is asked to start one of
ours beside itself, which tells systemd that it is the main process from now on. So no run has to end for it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from pathlib import Path

from sparrow_mp.paths import check_address
from sparrow_supervisor.fingerprint import UNIT
from sparrow_supervisor.zygote_client import ZygoteClient

_HEIR_S = 15.0


def find(path: Path, elders: Collection[ZygoteClient]) -> ZygoteClient:
    """The zygote that listens there, or one that an elder of the unit starts there, which this waits for.

    Raises FileNotFoundError, ConnectionRefusedError where there is none, another OSError where it cannot be reached; StateError.
    """
    check_address(path, "the zygote's socket")
    elder = next((elder for elder in elders if elder.path.name.startswith(f"zygote-{UNIT}")), None)
    deadline = time.monotonic() + _HEIR_S
    asked = False
    while True:
        try:
            return ZygoteClient.find(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if elder is None or elder.closed or time.monotonic() > deadline:
                raise
        if not asked:
            asked = True
            elder.ask(op="succeed", argv=heir())
        time.sleep(0.02)  # nothing turns yet


def heir() -> list[str]:
    """The command line of a zygote of this sparrow."""
    return [sys.executable, "-P", "-m", "sparrow_supervisor.zygote", "--unit"]
