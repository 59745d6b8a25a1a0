"""The benchmarks' judgement and their page: what says whether a promise is kept must not be wrong itself."""

from __future__ import annotations

import json

import pytest

from benchmarks import report
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
