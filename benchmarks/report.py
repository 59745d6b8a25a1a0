"""The rows as Markdown, as JSON, and between the markers of docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.rows import Row

BEGIN = "<!-- figures: written by scripts/bench -->"
END = "<!-- /figures -->"
_QUIET = 0.75
"""A figure before which less of the CPU than this was idle is told to be doubtful."""


def as_markdown(rows: Sequence[Row], machine: dict[str, str], failures: dict[str, str]) -> str:
    """A table, the machine below it, and what is missing."""
    lines = [
        "| | what | ours | baseline | ratio | goal | met |",
        "|---|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
        *(f"| {name} | not measured: {_cell(reason)} | | | | | **no** |" for name, reason in failures.items()),
        "",
        *(f"- {note}" for note in _notes(rows)),
        "",
        "Measured on: " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row], machine: dict[str, str], failures: dict[str, str]) -> bytes:
    """The same with every sample, for programs."""
    body = {
        "machine": machine,
        "rows": [
            {
                "figure": row.figure,
                "what": row.what,
                "unit": row.unit,
                "against": row.against,
                "ours": row.our_median,
                "baseline": row.baseline_median,
                "ratio": row.ratio,
                "ratio_is": "baseline/ours" if row.faster else "ours/baseline",
                "goal": _goal(row),
                "met": row.met,
                "samples": {"ours": row.ours, "baseline": row.baseline},
                "idle_before": row.idle_before,
                "note": row.note,
            }
            for row in rows
        ],
        "failed": failures,
    }
    return msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"


def insert(page: Path, table: str) -> None:
    """Put the table between the markers of a page. Raises ValueError where it has none."""
    text = page.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} has no place for the table: it needs the lines {BEGIN} and {END}")
    page.write_text(f"{head}{BEGIN}\n\n{table}\n{END}{tail}", encoding="utf-8")


def _line(row: Row) -> str:
    met = {True: "yes", False: "**no**", None: "not judged" if row.ours else "not measured"}[row.met]
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} ×"
    if row.ratio is not None and row.faster:
        ratio += " faster"
    cells = (row.figure, _cell(row.what), _value(row.our_median, row), _baseline(row), ratio)
    return f"| {' | '.join(cells)} | {_goal(row)} | {met} |"


def _baseline(row: Row) -> str:
    """Its figure, and what it is: a figure may have several."""
    return ": ".join(filter(None, (_value(row.baseline_median, row), _cell(row.against))))


def _goal(row: Row) -> str:
    if row.goal is None:
        return row.goal_text
    suffix = " ×" if row.goal.of == "ratio" else f" {row.unit}"
    return f"{row.goal.kind} {row.goal.bound:g}{suffix}" + (" faster" if row.faster else "")


def _value(value: float | None, row: Row) -> str:
    if value is None:
        return ""
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{text} {row.unit}"


def _notes(rows: Sequence[Row]) -> list[str]:
    """Each once, behind the figures that it is about."""
    about: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            about.setdefault(row.note, []).append(row.figure)
    for row in rows:
        if row.idle_before is not None and row.idle_before < _QUIET:
            words = f"other programs were busy ({row.idle_before:.0%} of the CPU was idle before): take it with a grain of salt"
            about.setdefault(words, []).append(row.figure)
    return [f"{', '.join(dict.fromkeys(figures))}: {note}." for note, figures in about.items()]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
