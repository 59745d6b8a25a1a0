"""What a review found to bring the house down, and what does not any more."""

from __future__ import annotations

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress

_ASK = """
def ask(run):
    return run.ask("may I?", timeout=0.2)
"""


def kill_zygote(house: House) -> None:
    zygote = int(house.status()["zygote_pid"])
    processes.kill(zygote)
    eventually(lambda: house.status()["zygote_pid"] not in (zygote, None), what="another zygote")


def test_runs_end_truly_after_one_zygote_and_then_another_has_died(house: House) -> None:
    house.start()
    runs = []
    for code in (3, 4):
        runs.append((house.detach(f"read line; exit {code}"), code))
        house.pid_of(runs[-1][0])
        kill_zygote(house)
    for run, code in runs:
        house.sparrow("inject", run, "go").ok()
        assert house.outcome(run)["exit_code"] == code
    assert house.sparrow("run", "echo on").ok().out == "on\n"
    house.sparrow("shutdown").ok()


def test_a_ring_of_nuls_and_a_bad_line_keep_no_supervisor_from_starting(house: House) -> None:
    house.may_complain = True
    house.start()
    run = house.detach("echo before; read line")
    house.says(run, "before")
    torn = house.detach("echo before; read line")
    house.says(torn, "before")
    victims = [house.monitor_of(run), house.pid_of(run), int(house.status()["zygote_pid"])]
    house.kill_supervisor()
    for victim in victims:
        processes.kill(victim)
    outbox = house.places.run_folder(run) / "outbox"
    page = outbox.read_bytes()[:4096]
    outbox.write_bytes(page + bytes(8192))
    record = house.places.transcript(torn) / "events.jsonl"
    first, rest = record.read_bytes().split(b"\n", 1)
    record.write_bytes(first + b"\nthis is no event\n" + rest)
    house.start()
    eventually((house.places.transcript(run) / "meta.json").exists, what="the end of what died with everybody")
    house.sparrow("kill", torn, "--now").ok()


@pytest.mark.parametrize("size", [100_000, 300_000])
def test_text_that_grows_on_its_way_is_taken_or_refused_but_ends_no_run(house: House, size: int) -> None:
    run = house.detach("while read line; do echo ${#line}; done")
    done = house.sparrow("inject", run, "-", stdin="\x01" * size + "\n")
    assert done.code in (0, 2)
    house.sparrow("inject", run, "four").ok()
    house.says(run, "4\n")
    house.sparrow("kill", run, "--now").ok()


def test_an_approval_that_nobody_gave_in_time_is_denied_and_no_longer_open(house: House) -> None:
    engine = house.write("ask.py", _ASK)
    run = house.detach("-e", "python", f"{engine}:ask")
    assert house.outcome(run)["result"] == "Deny"
    (resolved,) = [event for event in house.events(run) if event["type"] == "ApprovalResolved"]
    assert resolved["decision"] == "Deny"


def test_a_run_has_its_callers_umask_and_time_zone(house: House) -> None:
    house.sparrow("run", "true").ok()
    asked = "import os, sparrow_mp; os.umask(0o026); sparrow_mp.Client().submit('umask; date +%Z').wait()"
    done = house.python(asked, env={"TZ": "Asia/Tokyo"})
    assert done.code == 0, done
    (row,) = [row for row in house.ps() if "umask" in row["task"]]
    assert house.printed(row["run"]) == "0026\nJST\n"


def test_what_an_engine_logs_is_its_own_and_not_the_zygotes(house: House) -> None:
    engine = house.write("log.py", "import logging\ndef log(run):\n    logging.warning('a word of its own')\n")
    run = house.detach("-e", "python", f"{engine}:log")
    house.outcome(run)
    assert "a word of its own" in house.printed(run, "stderr")
    assert "a word of its own" not in (house.state / "zygote.log").read_text()


def test_an_interrupters_words_have_a_limit(house: House) -> None:
    run = house.detach("sleep 100")
    house.sparrow("kill", run, "-m", "x" * 20_000).refused(2, "limit")
    house.sparrow("kill", run, "-m", "x" * 9_000, "--now").ok()
    assert house.outcome(run)["reason"] == "x" * 9_000
