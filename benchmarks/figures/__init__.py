"""One module a figure of the promises; each has ``TITLE`` and ``measure(plan)``, which gives its rows."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures import f1, f2, f3, f4, f5, f7, f11
from benchmarks.rows import Plan, Row

FIGURES: dict[str, tuple[str, Callable[[Plan], list[Row]]]] = {
    "F1": (f1.TITLE, f1.measure),
    "F2": (f2.TITLE, f2.measure),
    "F3": (f3.TITLE, f3.measure),
    "F4": (f4.TITLE, f4.measure),
    "F5": (f5.TITLE, f5.measure),
    "F7": (f7.TITLE, f7.measure),
    "F11": (f11.TITLE, f11.measure),
}
"""What is measured, in the order of the promises."""

NOT_MEASURED = {
    "F6": "what a command prints, lines/s, against supervisord's log file",
    "F8": "50 runs that emit at once",
    "F9": "SIGKILL to a whole tree of 20 gone",
    "F10": "1,000 runs at once; 100,000 ended ones",
}
"""Figures of the promises that this harness does not measure, so that nobody takes them for met."""
