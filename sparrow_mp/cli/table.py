"""Rows in aligned columns: as wide as they need on a pipe, as wide as there is on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from sparrow_mp.cli.output import Span, paint
from sparrow_mp.cli.words import columns, one_line

_GAP = "  "
_LEAST = 12


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[Span]],
    *,
    right: frozenset[int] = frozenset(),
    elastic: int | None = None,
    width: int | None = None,
    colour: bool = False,
) -> list[str]:
    """The rows as lines, under their headers. ``right`` are columns of numbers.

    The ``elastic`` column is cut so that a line fits into ``width`` columns, where that is given.
    """
    widths = [max([columns(header), *(columns(row[n][0]) for row in rows)]) for n, header in enumerate(headers)]
    if elastic is not None and width is not None:
        others = sum(widths) - widths[elastic] + len(_GAP) * (len(widths) - 1)
        widths[elastic] = max(_LEAST, min(widths[elastic], width - others))
    lines = [_line([(header, "dim") for header in headers], widths, right, colour)]
    lines += [_line(row, widths, right, colour) for row in rows]
    return lines


def _line(row: Sequence[Span], widths: list[int], right: frozenset[int], colour: bool) -> str:
    cells = []
    for n, (text, style) in enumerate(row):
        text = one_line(text, widths[n])
        padding = " " * (widths[n] - columns(text))
        painted = paint([(text, style)], colour)
        cells.append(padding + painted if n in right else painted + padding)
    return _GAP.join(cells).rstrip()
