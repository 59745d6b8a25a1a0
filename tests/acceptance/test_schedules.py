"""Jobs, as somebody has them: by the clock, by hand, when files change; and what becomes of a bad one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def job(house: House, name: str) -> dict[str, Any]:
    (row,) = [row for row in house.sparrow("schedule", "list", "--json").ok().rows() if row["job"] == name]
    return row


def write_jobs(house: House, text: str) -> None:
    new = house.state / "new"
    new.write_text(text)
    new.rename(house.places.jobs)


def edited_by_hand(house: House) -> str:
    return house.places.jobs.read_text()


def test_a_job_from_the_command_line_without_a_supervisor(house: House) -> None:
    house.sparrow(
        "schedule", "add", "nightly", "--cron", "0 3 * * 1-5", "--timezone", "Europe/Paris", "make", "test"
    ).ok()
    row = job(house, "nightly")
    assert (row["task"], row["cron"], row["timezone"], row["paused"]) == (
        "make test",
        "0 3 * * 1-5",
        "Europe/Paris",
        False,
    )
    following = datetime.fromisoformat(row["next"])
    assert following > datetime.now(UTC)
    assert following.minute == 0
    write_jobs(
        house, "# mine\n" + edited_by_hand(house).replace('cron = "', 'cron   = "').replace("[jobs", "# keep\n[jobs", 1)
    )
    house.sparrow("schedule", "pause", "nightly").ok()
    assert job(house, "nightly")["paused"] is True
    house.sparrow("schedule", "add", "other", "--cron", "@daily", "--", "echo", "a b").ok()
    house.sparrow("schedule", "rm", "other").ok()
    house.sparrow("schedule", "resume", "nightly").ok()
    text = edited_by_hand(house)
    assert text.startswith("# mine\n")
    assert "# keep\n[jobs.nightly]" in text
    assert 'cron   = "0 3' in text
    assert "paused" not in text
    shown = house.sparrow("schedule", "list").ok().out
    assert "nightly" in shown
    assert "make test" in shown
    assert not house.supervised


def test_a_job_that_is_fired_by_hand(house: House) -> None:
    """Edits by hand, changed files and crashes: tests/stress/test_schedules.py."""
    house.start()
    house.sparrow(
        "schedule", "add", "talk", "--cron", "0 0 1 1 *", "--label", "l", "--autonomy", "trusted", "--budget", "2",
        "--env", "GREETING=hello", "--", "sh", "-c", "echo $GREETING; read x; echo got $x; sleep 60",
    ).ok()  # fmt: skip
    run = house.sparrow("schedule", "fire", "talk", "--json").ok().rows()[0]["run"]
    house.says(run, "hello")
    record = house.record(run)
    assert (record["job"], record["name"], record["labels"]) == ("talk", "talk", ["l"])
    inputs = house.python(f"print(open({str(house.places.transcript(run) / 'inputs.json')!r}).read())").ok().out
    assert '"budget":2' in inputs
    assert '"autonomy":"trusted"' in inputs
    assert '"job":"talk"' in inputs
    house.sparrow("inject", "talk", "words").ok()
    house.says(run, "got words")
    again = house.sparrow("schedule", "fire", "talk")
    assert again.code == 1
    assert run[:8] in again.err
    house.sparrow("kill", "--now", run).ok()
    row = job(house, "talk")
    assert (row["last_run"], row["last_status"], row["last_why"]) == (run, "interrupted", "asked")
    missing = house.sparrow("schedule", "fire", "tolk")
    assert missing.code == 3
    assert "did you mean `talk`" in missing.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--cron", "0 0 30 2 *", "x"], 2, "never fires"),
        (["--cron", "@daily", "--timezone", "Europe/Pari", "x"], 2, "did you mean `Europe/Paris`"),
        (["--cron", "@daily"], 2, "Say what to run"),
        (["x"], 2, "Say when it fires"),
        (["--watch", "../*.py", "x"], 2, "leads out of the job's folder"),
        (["--watch", "/etc/*", "x"], 2, "leads out of the job's folder"),
        (["--cron", "@daily", "--missed", "perhaps", "x"], 2, "perhaps"),
    ],
)
def test_bad_jobs_are_refused(house: House, words: list[str], code: int, said: str) -> None:
    done = house.sparrow("schedule", "add", "j", *words)
    assert (done.code, said in done.err) == (code, True), done.err
    assert not house.places.jobs.exists()


def test_who_follows_a_firing_hears_that_it_does_not_come(house: House) -> None:
    house.sparrow("schedule", "add", "q", "--cron", "@yearly", "--overlap", "queue", "--", "sleep", "100").ok()
    first = house.sparrow("schedule", "fire", "q").ok().out.strip()
    with house.begin("schedule", "fire", "-f", "q") as following:
        eventually(lambda: job(house, "q").get("waiting"), what="a firing that waits")
        house.sparrow("schedule", "rm", "q").ok()
        done = following.wait()
    assert (done.code, "the job is gone" in done.err) == (1, True), done
    house.sparrow("kill", "--now", first).ok()
