"""The benchmarks' judgement and their page: what says whether a promise is kept must not be wrong itself."""

from __future__ import annotations

import json
import subprocess

import pytest

from benchmarks import guard, peers, report
from benchmarks.curves.curve import Curve
from benchmarks.peers.peer import Peer, Unfit
from benchmarks.rows import Goal, Plan, Row, alternate, percentile


def row(**fields):
    return Row("F0", "something", "ms", "something else", **fields)


def test_the_ratio_is_that_of_the_medians_in_the_terms_of_the_promise():
    assert row(baseline=[10, 20, 90], ours=[1, 2, 3]).ratio == 0.1
    assert row(baseline=[10, 20, 90], ours=[1, 2, 3], faster=True).ratio == 10


@pytest.mark.parametrize(
    ("goal", "ours", "met"),
    [
        (Goal(3, "at least"), 300, True),
        (Goal(3, "at least"), 299, False),
        (Goal(0.35, "at most"), 35, True),
        (Goal(0.35, "at most"), 36, False),
        (Goal(5, "at most", "ours"), 5, True),
        (Goal(5, "at most", "ours"), 6, False),
    ],
)
def test_a_goal_is_met_or_it_is_not(goal, ours, met):
    assert row(baseline=[100], ours=[ours], goal=goal).met is met


def test_what_was_not_measured_is_neither_met_nor_unmet():
    assert row(goal=Goal(3, "at least")).met is None
    assert "not measured" in report.as_markdown([row(goal=Goal(3, "at least"))], {}, {})


def test_what_could_not_be_measured_is_told_as_not_met():
    assert "| F9 | not measured: it \\| broke | | | | | **no** |" in report.as_markdown([], {}, {"F9": "it | broke"})


def test_baseline_and_ours_are_taken_by_turns():
    calls: list[str] = []

    def sample(name):
        calls.append(name)
        return 1.0

    alternate(2, lambda: sample("baseline"), lambda: sample("ours"))
    assert calls == ["baseline", "ours", "baseline", "ours"]


def test_a_percentile_is_a_value_that_was_seen():
    assert percentile([5, 1, 4, 2, 3], 0.5) == 3
    assert percentile([1.0], 0.99) == 1.0
    assert percentile([float(n) for n in range(100)], 0.99) == 99


def test_quick_takes_less():
    assert (Plan().size(100, 10), Plan(quick=True).size(100, 10)) == (100, 10)


def test_only_the_place_between_the_markers_is_rewritten(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.insert(page, "| new |\n")
    assert page.read_text() == f"before\n{report.BEGIN}\n\n| new |\n\n{report.END}\nafter\n"
    report.insert(page, "| newer |\n")
    assert page.read_text() == f"before\n{report.BEGIN}\n\n| newer |\n\n{report.END}\nafter\n"


def test_a_page_without_markers_is_left_alone(tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("words")
    with pytest.raises(ValueError, match=r"performance\.md has no place"):
        report.insert(page, "| new |")
    assert page.read_text() == "words"


def test_the_json_has_every_sample():
    body = json.loads(report.as_json([row(baseline=[2.0], ours=[1.0, 3.0])], {"cores": "2"}, {}))
    assert body["rows"][0]["samples"] == {"ours": [1.0, 3.0], "baseline": [2.0]}
    assert body["machine"] == {"cores": "2"}


# ── the regression guard ──


def rounds(unit, ours, baseline=(10.0, 10.0, 10.0, 10.0, 10.0), figure="F1"):
    return guard.Row(figure, "something", "something else", unit, guard.Samples(list(ours), list(baseline)))


QUIET = (100.0, 102.0, 98.0, 101.0, 99.0)


@pytest.mark.parametrize(
    ("unit", "now", "verdict"),
    [
        ("events/s", (70.0, 72.0, 69.0, 71.0, 68.0), "worse"),
        ("events/s", (130.0, 128.0, 131.0, 129.0, 133.0), "better"),
        ("ms", (130.0, 128.0, 131.0, 129.0, 133.0), "worse"),
        ("MB", (70.0, 72.0, 69.0, 71.0, 68.0), "better"),
        ("events/s", (101.0, 97.0, 103.0, 99.0, 100.0), "same"),  # noise
        ("events/s", (70.0, 72.0, 105.0, 71.0, 99.0), "same"),  # two rounds as good as ever: a noisy minute
        ("events/s", (97.5, 97.6, 97.4, 97.7, 97.3), "same"),  # all a little worse: nobody would notice
        ("events/s", (70.0, 72.0), "unclear"),
    ],
)
def test_the_guard_tells_a_regression_from_noise(unit, now, verdict):
    (change,) = guard.compare([rounds(unit, QUIET)], [rounds(unit, now)])
    assert change.verdict == verdict


def test_a_noisy_release_has_less_to_say():
    noisy = (60.0, 140.0, 95.0, 110.0, 75.0)
    (change,) = guard.compare([rounds("events/s", noisy)], [rounds("events/s", (65.0, 70.0, 66.0, 69.0, 68.0))])
    assert change.verdict == "same"


def test_a_slow_machine_is_no_regression():
    """What the baseline suffers from in the same round is not sparrow's doing."""
    (change,) = guard.compare(
        [rounds("events/s", QUIET)], [rounds("events/s", [value / 2 for value in QUIET], [5.0] * 5)]
    )
    assert change.verdict == "same"
    assert change.times == pytest.approx(1)


def test_rows_that_only_one_run_has_are_not_compared():
    assert guard.compare([rounds("ms", QUIET)], [rounds("ms", QUIET, figure="F2")]) == []


def test_the_guard_reads_what_a_run_writes_and_tells_it(tmp_path):
    path = tmp_path / "latest.json"
    path.write_bytes(report.as_json([row(baseline=[1.0, 1.0, 1.0], ours=[2.0, 2.1, 1.9])], {"CPU": "x"}, {}))
    release = guard.load(path)
    path.write_bytes(report.as_json([row(baseline=[1.0, 1.0, 1.0], ours=[3.0, 3.1, 2.9])], {"CPU": "y"}, {}))
    now = guard.load(path)
    words = guard.told(guard.compare(release.rows, now.rows), release, now)
    assert "1 worse, 0 better" in words
    assert "worse: F0 something (beside something else): 0.67 times as good" in words
    assert "another kind of machine" in words


# ── the peers ──


class Quiet(Peer):
    """A peer that has one figure of the three."""

    name = "quiet 1.0"

    def first_line(self):
        return 4.0


class Absent(Peer):
    name = "absent"

    def __init__(self, work):
        raise Unfit("it is not installed")


def test_a_peer_that_is_absent_or_cannot_be_compared_breaks_nothing():
    ours = row(ours=[2.0])
    with peers.present(Plan(), (Quiet, Absent)) as here:
        first = peers.Beside(here, ours, lambda peer: peer.first_line(), {"Quiet": Goal(1, "at most")})
        runs = peers.Beside(here, ours, lambda peer: peer.runs_a_second(), {})
        first.round()
        runs.round()
    measured, missing = first.rows()
    assert (measured.against, measured.ratio, measured.met) == ("quiet 1.0", 0.5, True)
    assert (missing.ratio, missing.note) == (None, "not compared with absent: it is not installed")
    assert runs.rows()[0].note == "not compared with quiet 1.0: it has nothing to compare"


def test_a_printer_prints_the_lines_that_it_says():
    with peers.present(Plan(), (), lines={"cat": 30, "loop": 30}) as here:
        for printer in here.printers.values():
            said = subprocess.run(printer.argv, capture_output=True, check=True).stdout
            assert (said.count(b"\n"), len(said)) == (printer.count, printer.size)


# ── the curves ──


def test_a_distribution_ends_at_a_hundred_percent():
    curve = Curve("name", "title", "ms", "%")
    curve.distribution("ours", [3.0, 1.0, 2.0, 4.0])
    assert curve.series["ours"] == [(1.0, 25.0), (2.0, 50.0), (3.0, 75.0), (4.0, 100.0)]


def test_a_long_series_is_thinned_and_keeps_its_last_point():
    curve = Curve("name", "title", "ms", "%")
    curve.distribution("ours", [float(number) for number in range(5000)])
    points = curve.as_json()["series"]["ours"]
    assert len(points) <= 201
    assert points[-1] == [4999.0, 100.0]


def test_a_curve_is_drawn_the_same_each_time(tmp_path):
    curve = Curve("name", "title", "runs", "events/s", baselines={"theirs"})
    for name in ("ours", "theirs"):
        curve.add(name, 1, 1000.0)
        curve.add(name, 10, 2000.0)
    first = curve.draw(tmp_path / "a").read_bytes()
    assert first == curve.draw(tmp_path / "b").read_bytes()
    assert b"theirs" in first
