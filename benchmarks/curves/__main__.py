"""``python -m benchmarks.curves`` (scripts/bench --curves): measure, draw, write down."""

from __future__ import annotations

import argparse
import sys
import time

import msgspec

from benchmarks import machine
from benchmarks.curves import CURVES
from benchmarks.curves.curve import Curve
from benchmarks.daemon import ROOT
from benchmarks.rows import Failed, Plan


def main(arguments: list[str]) -> int:
    """Measure what is asked for; 1 where something could not be measured."""
    asked = _arguments(arguments)
    # Only all of them, thoroughly measured, become the plots that the documentation shows.
    official = not asked.only and not asked.quick
    scratch = ROOT / "benchmarks" / "out"
    plots, points = (ROOT / "docs" / "plots", ROOT / "benchmarks" / "results") if official else (scratch, scratch)
    here = machine.describe()
    curves: list[Curve] = []
    failed = False
    for name in asked.only or CURVES:
        title, measure = CURVES[name]
        started = time.perf_counter()
        try:
            found = measure(Plan(quick=asked.quick))
            for curve in found:
                _say(f"  {curve.draw(plots).relative_to(ROOT)}")
        except (Failed, ImportError) as reason:
            _say(f"{name}: {reason}")
            failed = True
            continue
        curves += found
        _say(f"{name}: {title}: {time.perf_counter() - started:.0f} s")
    points.mkdir(parents=True, exist_ok=True)
    body = {"machine": here, "curves": [curve.as_json() for curve in curves]}
    (points / "curves.json").write_bytes(msgspec.json.encode(body) + b"\n")
    _say(f"Written: {(points / 'curves.json').relative_to(ROOT)}.")
    return 1 if failed else 0


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench --curves",
        description="Measures how sparrow's figures grow with what they depend on, and draws it. It takes some minutes.",
    )
    parser.add_argument("--only", type=_names, metavar="size,clients", help=f"only these of {', '.join(CURVES)}")
    parser.add_argument("--quick", action="store_true", help="few small points: to see whether it works")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in CURVES:
            raise argparse.ArgumentTypeError(f"there is no curve {name}; there are {', '.join(CURVES)}")
    return names


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
