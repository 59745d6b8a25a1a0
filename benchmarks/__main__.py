"""``python -m benchmarks``: measure, print, write down."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks import machine, plot, report
from benchmarks.daemon import ROOT
from benchmarks.figures import FIGURES
from benchmarks.rows import Failed, Plan, Row

_RESULTS = ROOT / "benchmarks" / "results"
_SCRATCH = ROOT / "benchmarks" / "out"
_PAGE = ROOT / "docs" / "performance.md"


def main() -> int:
    """Measure what is asked for; 1 where a figure could not be measured. A goal that is not met is a result, not an error."""
    asked = _arguments()
    names = asked.only or list(FIGURES)
    # Only whole, thorough measurements become the ones that the documentation shows.
    official = not asked.only and not asked.quick and asked.rounds >= 5
    folder = _RESULTS if official else _SCRATCH
    plan = Plan(rounds=3 if asked.quick else asked.rounds, quick=asked.quick)
    here = machine.describe()
    rows: list[Row] = []
    failures: dict[str, str] = {}
    idles: list[float] = []
    for name in names:
        title, measure = FIGURES[name]
        idles.append(machine.wait_until_quiet(asked.patience))
        started = time.perf_counter()
        _say(f"{name}: {title} …")
        try:
            measured = measure(plan)
        except Failed as reason:
            failures[name] = str(reason)
            _say(f"{name}: {reason}")
            continue
        for row in measured:
            row.idle_before = round(idles[-1], 3)
        rows += measured
        _say(f"{name}: {time.perf_counter() - started:.0f} s, {idles[-1]:.0%} of the CPU was idle before")
    here["idle before"] = f"{min(idles):.0%} to {max(idles):.0%} of the CPU"
    table = report.as_markdown(rows, here, failures)
    print(table)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.md").write_text(f"# The latest figures\n\n{table}", encoding="utf-8")
    (folder / "latest.json").write_bytes(report.as_json(rows, here, failures))
    _say(plot.draw(rows, folder / "latest.svg"))
    if official:
        report.insert(_PAGE, table)
        _say(f"Written: {_shown(folder)}/latest.md, latest.json; the table in {_shown(_PAGE)}.")
    else:
        _say(
            f"Written: {_shown(folder)}/latest.md, latest.json. (A full run without --quick updates the documentation.)"
        )
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures sparrow against the goals of its promises, each against a baseline in the same run.",
        epilog="A full run takes a few minutes and updates benchmarks/results and docs/performance.md.",
    )
    parser.add_argument("--only", type=_figures, metavar="F1,F7", help=f"only these of {', '.join(FIGURES)}")
    parser.add_argument("--quick", action="store_true", help="three small rounds: to see whether it works")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="samples of each (default 5)")
    parser.add_argument(
        "--patience",
        type=float,
        default=30,
        metavar="S",
        help="wait up to so many seconds before each figure for a quiet machine (default 30)",
    )
    return parser.parse_args()


def _figures(text: str) -> list[str]:
    names = [name.strip().upper() for name in text.split(",")]
    for name in names:
        if name not in FIGURES:
            raise argparse.ArgumentTypeError(f"there is no figure {name}; there are {', '.join(FIGURES)}")
    return names


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT)


if __name__ == "__main__":
    sys.exit(main())
