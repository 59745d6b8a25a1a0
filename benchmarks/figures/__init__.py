"""One module a figure of the promises; each has ``TITLE`` and ``measure(plan)``, which gives its rows."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures import f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, s6
from benchmarks.rows import Plan, Row

FIGURES: dict[str, tuple[str, Callable[[Plan], list[Row]]]] = {
    "F1": (f1.TITLE, f1.measure),
    "F2": (f2.TITLE, f2.measure),
    "F3": (f3.TITLE, f3.measure),
    "F4": (f4.TITLE, f4.measure),
    "F5": (f5.TITLE, f5.measure),
    "F6": (f6.TITLE, f6.measure),
    "F7": (f7.TITLE, f7.measure),
    "F8": (f8.TITLE, f8.measure),
    "F9": (f9.TITLE, f9.measure),
    "F10": (f10.TITLE, f10.measure),
    "F11": (f11.TITLE, f11.measure),
    "S6": (s6.TITLE, s6.measure),
}
"""What is measured, in the order of the promises."""
