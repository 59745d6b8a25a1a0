"""Durations and sizes as people write them, on the command line and in the configuration."""

from __future__ import annotations

import math
import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)(?:i?B)?", re.IGNORECASE)


def parse_duration(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``5m``, ``2h``, ``30d`` or parts together, ``1h30m``. Raises ValueError."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _PARTS.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"`{text}` is no duration; write seconds, or 90s, 5m, 2h, 30d")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def parse_size(text: str) -> int:
    """Bytes from ``4096``, ``512K``, ``1.5G``; a K is 1024. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    size = float(found[1]) * _BYTES[found[2].upper()] if found else math.inf
    if size == math.inf:
        raise ValueError(f"`{text}` is no size; write bytes, or 512K, 100M, 2G")
    return int(size)
