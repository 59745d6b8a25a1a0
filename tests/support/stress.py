"""What the stress tests share: how much they do, and the line with its figure that each of them says."""

from __future__ import annotations

import os
from collections.abc import Callable

FACTOR = float(os.environ.get("SPARROW_STRESS", "1"))
"""1: the figures that every change has to reach; 10: the long suite; below 1 for who works on such a test."""

Figure = Callable[[str], None]
"""Says one line, such as ``N1: 1,000 kills of the supervisor, 1,000,000 events: 0 lost``."""


def scaled(number: int) -> int:
    """So many at the figures for every change, more or fewer at another scale; at least one."""
    return max(1, round(number * FACTOR))
