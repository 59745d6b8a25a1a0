"""``python -m benchmarks``: measure, print, write down, compare with the last release."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec

from benchmarks import guard, machine, plot, report
from benchmarks.daemon import ROOT
from benchmarks.figures import FIGURES
from benchmarks.rows import Failed, Plan, Row

_RESULTS = ROOT / "benchmarks" / "results"
_RELEASE = _RESULTS / "release.json"
_SCRATCH = ROOT / "benchmarks" / "out"
_PAGE = ROOT / "docs" / "performance.md"
_MEASURE = ""
"""What --compare is without a file: measure, then compare that."""


def main() -> int:
    """Do what is asked for. A goal that is not met is a result, and no error."""
    asked = _arguments()
    if asked.compare:
        return 3 if _compared(Path(asked.compare)) else 0
    folder, failures = _measured(asked)
    worse = (asked.compare == _MEASURE or not asked.quick) and _compared(folder / "latest.json")
    if failures:
        return 1
    return 3 if worse and asked.compare == _MEASURE else 0


def _measured(asked: argparse.Namespace) -> tuple[Path, dict[str, str]]:
    """Measure and write it down: into which folder, and what could not be measured."""
    # Only whole, thorough measurements become the ones that the documentation shows.
    official = not asked.only and not asked.quick and asked.rounds >= 5
    folder = _RESULTS if official else _SCRATCH
    here = machine.describe()
    rows, failures = _rows(asked.only or list(FIGURES), Plan(3 if asked.quick else asked.rounds, asked.quick), asked)
    idles = [row.idle_before for row in rows if row.idle_before is not None] or [0.0]
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
    return folder, failures


def _rows(names: list[str], plan: Plan, asked: argparse.Namespace) -> tuple[list[Row], dict[str, str]]:
    rows: list[Row] = []
    failures: dict[str, str] = {}
    for name in names:
        title, measure = FIGURES[name]
        idle = machine.wait_until_quiet(asked.patience)
        started = time.perf_counter()
        _say(f"{name}: {title} …")
        try:
            measured = measure(plan)
        except Failed as reason:
            failures[name] = str(reason)
            _say(f"{name}: {reason}")
            continue
        for row in measured:
            row.idle_before = round(idle, 3)
        rows += measured
        _say(f"{name}: {time.perf_counter() - started:.0f} s, {idle:.0%} of the CPU was idle before")
    return rows, failures


def _compared(latest: Path) -> bool:
    """Say what changed since the last release; whether anything got worse."""
    if not _RELEASE.exists():
        _say(f"Compared with nothing: there is no {_shown(_RELEASE)}.")
        return False
    try:
        release, now = guard.load(_RELEASE), guard.load(latest)
    except (OSError, msgspec.DecodeError) as reason:
        raise SystemExit(f"{latest} cannot be compared: {reason}") from None
    changes = guard.compare(release.rows, now.rows)
    print(guard.told(changes, release, now))
    return any(change.verdict == "worse" for change in changes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures sparrow against the goals of its promises, each against a baseline in the same run.",
        epilog="`scripts/bench --curves` draws curves instead, with options of its own. A full run takes several minutes and updates benchmarks/results and docs/performance.md. Exit codes: 0;"
        " 1 a figure could not be measured; 2 wrong usage; 3 with --compare, something got worse.",
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
    parser.add_argument(
        "--compare",
        nargs="?",
        const=_MEASURE,
        metavar="FILE",
        help="exit with 3 where a ratio is worse than in the last release; with FILE (a latest.json) measure nothing",
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
