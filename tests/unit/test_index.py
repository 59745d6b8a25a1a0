"""Which runs there are: what a reference means, what is listed, and what waits for a run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sparrow_mp.errors import AmbiguousRun, NoSuchRun
from sparrow_mp.events import Tokens
from sparrow_supervisor.index import Index, record_of

A = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"
B = "1b0c8f5e-3000-4c1d-9e6b-0a1b2c3d4e5f"
C = "f00d8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "index.db")
    yield index
    index.close()


def add(index: Index, run: str, **fields: Any) -> None:
    number = index.counts()
    defaults: dict[str, Any] = {
        "name": None,
        "status": "running",
        "engine": "shell",
        "agent": "shell",
        "task": "make test",
        "cwd": "/",
        "labels": "[]",
        "terms": "{}",
        "created": "2026-11-22T12:00:00.000000Z",
        "created_at": float(sum(number.values())),
    }
    ended = fields.pop("ended", False)
    index.insert(run=run, **{**defaults, **fields})
    if ended:
        index.save(run, ended="2026-11-22T12:00:01.000000Z", status="completed")


def resolved(index: Index, ref: str) -> str:
    return str(index.resolve(ref)["run"])


# ── references ──


@pytest.mark.parametrize("ref", [A, A[:10], A[:11], "1b0c8f5e-2f0a-4c1d", A[:-1], A.upper(), A[:12].upper()])
def test_a_run_is_found_by_its_id_or_any_prefix_that_is_its_own(index: Index, ref: str) -> None:
    for run in (A, B, C):
        add(index, run)
    assert resolved(index, ref) == A


@pytest.mark.parametrize("ref", ["1", "1b0c8f5e", "1b0c8f5e-", "1B0C"])
def test_a_prefix_of_two_says_which_they_are(index: Index, ref: str) -> None:
    for run in (A, B, C):
        add(index, run, ended=run == A)
    with pytest.raises(AmbiguousRun) as caught:
        index.resolve(ref)
    message = caught.value.message
    assert message.startswith(f"{ref} fits more than one run (")
    assert message.endswith("); use more of it")
    assert "1b0c8f5e" in message
    assert "f00d" not in message


def test_a_prefix_of_very_many_says_some(index: Index) -> None:
    for number in range(10):
        add(index, f"1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5{number}")
    with pytest.raises(AmbiguousRun, match=r", …\); use more of it"):
        index.resolve("1b")
    assert resolved(index, "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e57").endswith("7")


@pytest.mark.parametrize("ref", ["", "-", "2", "zzz", "1b0c8f5e%", "1b0c8f5e_", "%", "1b0c8f5e-2f0g", A + "0", "'; --"])
def test_what_fits_no_run_says_so(index: Index, ref: str) -> None:
    add(index, A)
    with pytest.raises(NoSuchRun) as caught:
        index.resolve(ref)
    assert caught.value.message == f"No active run with id {ref}"


def test_a_run_that_has_ended_is_found_as_well(index: Index) -> None:
    add(index, A, ended=True)
    assert resolved(index, A) == resolved(index, "1b0c") == A


def test_a_name_is_the_live_one_else_the_newest(index: Index) -> None:
    add(index, A, name="tests", ended=True)
    add(index, B, name="tests", ended=True)
    assert resolved(index, "tests") == B
    add(index, C, name="tests")
    assert resolved(index, "tests") == C
    index.save(C, ended="now", status="failed")
    assert resolved(index, "tests") == C
    with pytest.raises(NoSuchRun):
        index.resolve("test")  # a name has no prefixes


def test_a_live_run_goes_before_a_newer_one_that_has_ended(index: Index) -> None:
    add(index, A, name="tests")
    add(index, C, name="tests", ended=True)
    assert resolved(index, "tests") == A


def test_two_live_runs_of_a_name_are_ambiguous(index: Index) -> None:
    add(index, A, name="tests")
    add(index, C, name="tests")
    with pytest.raises(AmbiguousRun, match="two live runs have the name tests: f00d8f5e and 1b0c8f5e"):
        index.resolve("tests")
    assert resolved(index, A) == A


def test_an_id_goes_before_a_name_and_a_name_before_a_prefix(index: Index) -> None:
    add(index, A)
    add(index, B, name="f00d")
    add(index, C, name=A)
    assert resolved(index, A) == A
    assert resolved(index, "f00d") == B
    assert resolved(index, "f00d8") == C


# ── lists ──


def listed(index: Index, **more: Any) -> list[str]:
    asked: dict[str, Any] = {"everything": False, "status": None, "label": None, "limit": None, **more}
    return [row["run"] for row in index.rows(**asked)]


def before(index: Index, run: str, **more: Any) -> list[str]:
    asked: dict[str, Any] = {"everything": True, "status": None, "label": None, "limit": None, **more}
    return [row["run"] for page in index.pages(before=run, **asked) for row in page]


def test_lists(index: Index) -> None:
    add(index, A, labels='["ci","nightly"]')
    add(index, B, labels='["ci"]', ended=True)
    add(index, C, status="queued")
    assert listed(index) == [A, C]
    assert listed(index, everything=True) == [A, B, C]
    assert listed(index, status="queued") == [C]
    assert listed(index, status="completed") == [B]
    assert listed(index, label="ci") == [A]
    assert listed(index, label="ci", everything=True) == [A, B]
    assert listed(index, label="c", everything=True) == []
    assert listed(index, everything=True, limit=2) == [B, C]
    assert listed(index, everything=True, limit=0) == []
    assert listed(index, status="completed", label="nightly") == []
    assert [row["run"] for row in index.live()] == [A, C]
    assert index.counts() == {"running": 1, "completed": 1, "queued": 1}
    assert before(index, C) == [B, A]
    assert before(index, C, limit=1) == [B]
    assert before(index, B, everything=False) == [A]
    assert before(index, A) == []
    with pytest.raises(NoSuchRun):
        before(index, A[:8])


def test_a_row_is_a_record_of_the_contract(index: Index) -> None:
    add(index, A, name="tests", labels='["ci"]', cwd="/tmp", agent="coder", job="nightly")
    index.save(A, pid=42, started_ts="2026-11-22T12:00:00.500000Z", events=7, cost_usd=0.5)
    index.save(A, tokens='{"input":3,"output":4}')
    row = index.row(A)
    assert row is not None
    record = record_of(row)
    assert (record.run, record.name, record.status, record.engine, record.agent) == (
        A, "tests", "running", "shell", "coder",
    )  # fmt: skip
    assert (record.task, record.cwd, record.labels, record.pid) == ("make test", "/tmp", ["ci"], 42)
    assert (record.created, record.started, record.ended) == (
        "2026-11-22T12:00:00.000000Z", "2026-11-22T12:00:00.500000Z", None,
    )  # fmt: skip
    assert (record.events, record.cost_usd, record.tokens, record.job) == (7, 0.5, Tokens(input=3, output=4), "nightly")
    index.save(A, ended="2026-11-22T12:00:01.000000Z", status="crashed", signal=9, reason="why")
    row = index.row(A)
    assert row is not None
    record = record_of(row)
    assert (record.status, record.pid, record.signal, record.exit_code, record.reason) == (
        "crashed",
        None,
        9,
        None,
        "why",
    )
    assert record.ended == "2026-11-22T12:00:01.000000Z"


# ── changes ──


def test_only_a_run_that_has_ended_is_forgotten(index: Index) -> None:
    add(index, A)
    index.delete(A)
    assert index.row(A) is not None
    index.save(A, ended="now")
    index.delete(A)
    assert index.row(A) is None


def test_a_run_is_there_once(index: Index) -> None:
    add(index, A)
    with pytest.raises(sqlite3.IntegrityError):
        add(index, A)


def test_all_is_there_after_a_crash(tmp_path: Path) -> None:
    first = Index(tmp_path / "index.db")
    add(first, A)
    first.save(A, status="stopping")
    first.add_pending("1", A, b"frame")
    # Not closed: what a supervisor that was killed leaves behind.
    second = Index(tmp_path / "index.db")
    row = second.row(A)
    assert row is not None
    assert row["status"] == "stopping"
    assert pending(second, A) == [("1", b"frame")]
    first.close()
    second.close()


def test_the_index_is_private(tmp_path: Path) -> None:
    Index(tmp_path / "index.db").close()
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_an_index_from_before_there_were_totals_opens_whatever_runs_said_of_their_tokens(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    first = Index(path)
    many = '{"input":6000000000000000000,"output":1}'
    for run, tokens in ((A, many), (A[:-1] + "0", many), (A[:-1] + "9", '{"input":1}')):
        add(first, run, tokens=tokens, ended=True)
    first.close()
    with sqlite3.connect(path) as old:
        old.executescript("DROP TRIGGER past_ended; DROP TRIGGER past_found; DROP TABLE past")
    old.close()
    Index(path).close()


# ── what waits for a run ──


def pending(index: Index, run: str) -> list[tuple[str, bytes]]:
    return [(request, frame) for request, frame in index.pending(run)]


def test_what_waits_for_a_run_is_kept_in_its_order(index: Index) -> None:
    for number, run in (("2", A), ("1", A), ("3", B)):
        index.add_pending(number, run, number.encode())
    assert pending(index, A) == [("1", b"1"), ("2", b"2")]
    index.drop_pending("1")
    index.drop_pending("1")
    assert pending(index, A) == [("2", b"2")]
    index.drop_pending_of(A)
    assert pending(index, A) == []
    assert pending(index, B) == [("3", b"3")]
