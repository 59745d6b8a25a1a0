"""A run is named by its id, any unambiguous prefix of it, or its name."""

from __future__ import annotations

import pytest

from sparrow_mp import NoSuchRun, connect, wire
from tests.support.control import ask, refusal
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def shortest(run: str, others: list[str]) -> str:
    """The shortest prefix that means this run alone."""
    return next(run[:n] for n in range(1, 37) if not any(other.startswith(run[:n]) for other in others if other != run))


def test_an_id_its_prefix_and_a_name_mean_the_same_run(shared: House):
    run = shared.detach("--name", "the.name-1", "--", "sh", "-c", "read line; exit 4")
    eventually(lambda: shared.record(run)["status"] == "running")
    eventually(lambda: shared.events(run), what="its first event")  # its monitor says hello before that
    others = [row["run"] for row in shared.ps()]
    for reference in (run, run[:13], shortest(run, others), "the.name-1"):
        assert ask(shared, {"op": "get", "run": reference})["run"]["run"] == run
        assert "started" in shared.sparrow("logs", reference).ok().out
    shared.sparrow("inject", shortest(run, others), "x").ok()
    for reference in (run, shortest(run, others), "the.name-1"):
        assert shared.sparrow("wait", reference).code == 4


def test_none_exits_3(shared: House):
    shared.start()
    for verb in ("logs", "kill", "wait", "attach", "replay", "rm"):
        shared.sparrow(verb, "no-such-run").refused(3, "No active run with id no-such-run")


@pytest.mark.parametrize("supervised", [True, False])
def test_an_ambiguous_prefix_exits_3_and_names_what_it_fits(house: House, supervised: bool):
    runs: list[str] = []
    while len({run[0] for run in runs}) == len(runs):
        runs.append(house.detach("--", "true"))
        house.outcome(runs[-1])
    first = next(run[0] for run in runs if [other[0] for other in runs].count(run[0]) > 1)
    if not supervised:
        house.sparrow("shutdown").ok()
    done = house.sparrow("logs", first).refused(3, first)
    assert all(run[:8] in done.err for run in runs if run[0] == first)
    if supervised:
        assert refusal(house, {"op": "get", "run": first}) == "ambiguous_run"
        house.sparrow("kill", first).refused(3)


def test_a_name_means_the_run_that_lives_where_older_ones_have_ended(shared: House):
    old = shared.detach("--name", "again", "--", "true")
    shared.outcome(old)
    new = shared.detach("--name", "again", "--", "sh", "-c", "read line")
    done = shared.sparrow("inject", "again", "x")
    assert done.code == 0, done
    assert shared.outcome(new)["status"] == "completed"


def test_a_name_that_looks_like_a_prefix(shared: House):
    first = shared.detach("--", "true")
    shared.outcome(first)
    named = shared.detach("--name", first[:4], "--", "true")
    shared.outcome(named)
    assert shared.sparrow("wait", first).code == 0
    found = ask(shared, {"op": "get", "run": first[:4]})
    assert not found["ok"] or found["run"]["run"] == named


def test_references_are_not_patterns(shared: House):
    shared.outcome(shared.detach("--", "true"))
    for reference in ("%", "_", "*", "?", "[0-9a-f]", "", " ", "..", "/", "../transcripts", "'; drop table runs; --"):
        assert refusal(shared, {"op": "get", "run": reference}) == "no_such_run", reference
        assert shared.sparrow("logs", "--", reference).code in (2, 3), reference


def test_a_long_list_comes_in_pages(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connect, "PAGE", 2)
    runs = [house.detach("--label", f"n{n % 2}", "--", "true") for n in range(5)]
    for run in runs:
        house.outcome(run)
    with house.client() as sparrow:
        asked: list[str | None] = []

        def ask(request: wire.List, reply: type[connect.RunsReply]) -> connect.RunsReply:
            asked.append(request.before)
            if gone := [run for run in deleted if run == request.before]:
                deleted.clear()
                house.sparrow("rm", *gone).ok()  # just before the next page is asked for
            return original(request, reply)

        original = sparrow._asker.ask
        monkeypatch.setattr(sparrow._asker, "ask", ask)
        deleted: list[str] = []
        assert [run.run for run in sparrow.list(all=True)] == runs
        assert asked == [None, runs[3], runs[1]]
        assert [run.run for run in sparrow.list(all=True, label="n0")] == runs[::2]
        assert [run.run for run in sparrow.list(all=True, limit=3)] == runs[2:]
        assert sparrow.list() == []
        asked.clear()
        deleted.append(runs[1])
        assert [run.run for run in sparrow.list(all=True)] == [runs[0], *runs[2:]]
        assert asked == [None, runs[3], runs[1], None, runs[3], runs[0]]
    with pytest.raises(NoSuchRun), house.client() as sparrow:
        sparrow._asker.ask(wire.List(all=True, before="no-such-run"), connect.RunsReply)


def test_ps_filters_and_limits(house: House):
    runs = [house.detach("--label", "all", "--label", f"n{n}", "--", "sh", "-c", f"exit {n % 2}") for n in range(4)]
    for run in runs:
        house.outcome(run)
    assert [row["run"] for row in house.ps("--label", "all")] == list(reversed(runs)) or [
        row["run"] for row in house.ps("--label", "all")
    ] == runs
    assert [row["run"] for row in house.ps("--label", "n2")] == [runs[2]]
    assert {row["run"] for row in house.ps("--status", "failed")} == {runs[1], runs[3]}
    assert house.ps("--label", "none") == []
    assert [row["run"] for row in house.ps("-n", "1")] == [runs[3]]
    assert set(house.sparrow("ps", "-a", "-q").ok().out.split()) == set(runs)
    assert house.sparrow("ps", "-q").ok().out == ""
