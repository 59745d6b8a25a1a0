"""A curve: points by name, what the axes are, and the picture of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_COLOURS = ("#2a7f62", "#b5483a", "#3a5fb5", "#8a6d1f", "#6b3fa0", "#444444")
_BASELINE = "dashed"


@dataclass
class Curve:
    """One plot. A point is (x, y)."""

    name: str
    """Of the file, without its ending."""
    title: str
    x: str
    y: str
    log_x: bool = True
    log_y: bool = False
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    baselines: set[str] = field(default_factory=set)
    """The series that are not sparrow's: drawn dashed."""
    marks: bool = True
    """Whether the points are shown, which for a distribution would be too many."""

    def add(self, name: str, x: float, y: float) -> None:
        """A further point of a series."""
        self.series.setdefault(name, []).append((x, y))

    def distribution(self, name: str, values: list[float]) -> None:
        """The share of the values, in percent, that are at most x: a series for a plot of distributions."""
        ordered = sorted(values)
        count = len(ordered)
        self.series[name] = [(value, 100 * (place + 1) / count) for place, value in enumerate(ordered)]

    def draw(self, folder: Path) -> Path:
        """Write the SVG. Raises ImportError without matplotlib."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        mpl.rcParams["svg.hashsalt"] = "sparrow"  # the same points make the same file
        mpl.rcParams["svg.fonttype"] = "none"  # text stays text: a third of the size
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        axes = figure.subplots()
        for (name, points), colour in zip(self.series.items(), _COLOURS, strict=False):
            style = _BASELINE if name in self.baselines else "solid"
            marker = "o" if self.marks else ""
            xs, ys = zip(*_thinned(points), strict=True)
            axes.plot(xs, ys, color=colour, label=name, linestyle=style, marker=marker, markersize=3.5, linewidth=1.3)
        axes.set_title(self.title, fontsize=11)
        axes.set_xlabel(self.x)
        axes.set_ylabel(self.y)
        if self.log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(_plain)
        if self.log_y:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(_plain)
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(_plain)
        axes.grid(visible=True, color="#dddddd", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.svg"
        figure.savefig(path, metadata={"Date": None})
        return path

    def as_json(self) -> dict[str, Any]:
        """For programs: the points that are drawn, to four digits."""
        points = {
            name: [[float(f"{value:.4g}") for value in point] for point in _thinned(series)]
            for name, series in self.series.items()
        }
        return {"name": self.name, "title": self.title, "x": self.x, "y": self.y, "series": points}


def _thinned(points: list[tuple[float, float]], most: int = 200) -> list[tuple[float, float]]:
    """Fewer points of a long series, the last one among them: more than can be seen only makes the file larger."""
    step = max(1, -(-len(points) // most))
    return [*points[:-1:step], points[-1]]


def _plain(value: float, _: object) -> str:
    """A number on an axis as people write it."""
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"
