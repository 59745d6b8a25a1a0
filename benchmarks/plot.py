"""The rows as a picture: how many times as good as its goal each figure is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import Row


def draw(rows: Sequence[Row], path: Path) -> str:
    """Write an SVG, or say in a sentence why there is none."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        return "No plot: matplotlib is not installed (it is one of the dev dependencies)."
    judged = [(row, score) for row in rows if (score := row.score) is not None]
    if not judged:
        return "No plot: nothing was judged."
    mpl.rcParams["svg.hashsalt"] = "sparrow"  # the same figures make the same file
    figure = Figure(figsize=(9, 0.45 * len(judged) + 1.2), layout="constrained")
    axes = figure.subplots()
    labels = [f"{row.figure}  {row.what.replace('`', '')}" for row, _ in judged]
    colours = ["#2a7f62" if score >= 1 else "#b5483a" for _, score in judged]
    bars = axes.barh(labels, [score for _, score in judged], color=colours)
    axes.bar_label(bars, labels=[f" {score:.2f}" for _, score in judged])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.invert_yaxis()
    axes.set_xlabel("times as good as its goal (1: just met)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    return f"The plot is {path.name}."
