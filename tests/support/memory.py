"""How much memory a process has, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path


def resident(pid: int) -> int:
    """The resident memory of a process, in bytes; 0 where there is none (any more)."""
    return _kibibytes(f"/proc/{pid}/status", "VmRSS:")


def proportional(pid: int) -> int:
    """Its share (PSS), where a page that n processes have in common counts 1/n; in bytes, 0 where there is none (any more)."""
    return _kibibytes(f"/proc/{pid}/smaps_rollup", "Pss:")


def _kibibytes(path: str, name: str) -> int:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name)), 0)
