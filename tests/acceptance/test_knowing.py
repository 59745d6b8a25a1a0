"""What can be known of a house: `ps` with what runs use, `status`, `metrics`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.exposition import Read, read
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

WORK = "while :; do i=$((i+1)); done"
SPENDS = """
from sparrow_mp import CostUpdate, TokenUsage

def work(run):
    run.emit(CostUpdate(usd=0.5))
    run.emit(TokenUsage(input=100, output=7))
    run.ask("go on")
"""


def measured(house: House) -> dict[str, Read]:
    return read(house.sparrow("metrics").ok().out)


def value(families: dict[str, Read], family: str, /, **labels: str) -> float:
    (found,) = [
        value for each, value in families[f"sparrow_{family}"].values.items() if labels.items() <= dict(each).items()
    ]
    return found


def test_cpu_and_memory_are_those_of_the_whole_tree(house: House) -> None:
    busy = house.detach(f"(setsid sh -c '{WORK}') & wait")
    idle = house.detach("sleep 1000")
    house.pid_of(idle)

    def looked_at() -> dict[str, dict[str, Any]]:
        """Both, in one look: the first ones may miss a run that has just begun, or show how much its beginning took."""
        records = {row["run"]: row for row in house.ps()}
        of_busy, of_idle = (records[run].get("cpu_percent", -1.0) for run in (busy, idle))
        return records if of_busy > 10 > of_idle >= 0 else {}

    records = eventually(looked_at, 40, "the CPU of what the one run has started, and none of the other")
    assert min(records[run]["memory_bytes"] for run in (busy, idle)) > 100_000
    row = next(line for line in house.sparrow("ps").out.splitlines() if line.startswith(busy[:8]))
    assert "%" in row


def test_the_figures_are_true_and_go_on_over_supervisors(house: House) -> None:
    alone = house.sparrow("metrics").refused(69, "no supervisor")
    assert read(alone.out)["sparrow_up"].values == {(): 0}
    house.write("spends.py", SPENDS)
    house.outcome(house.detach("true"))
    house.outcome(house.detach("exit 3"))
    run = house.detach("--name", "spender", "-e", "python", "spends.py:work")
    eventually(lambda: house.record(run)["waiting"], what="its question")
    eventually(lambda: house.record(run).get("memory_bytes"), 40, "a look at it")  # an answer waits 15 ms for one
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(eventually(lambda: house.status()["unix"], what="the adapters"))
        eventually(lambda: value(measured(house), "clients", kind="unix") == 1, what="the client")
        assert "1 client" in house.sparrow("status").ok().out
    first = measured(house)
    assert value(first, "up") == 1
    assert value(first, "runs", status="running") == 1
    assert value(first, "runs_waiting") == 1
    assert value(first, "runs_ended_total", status="completed") == 1
    assert value(first, "runs_ended_total", status="failed") == 1
    assert value(first, "runs_ended_total", status="lost") == 0
    assert value(first, "cost_usd") == 0.5
    assert value(first, "tokens", kind="input") == 100
    assert value(first, "run_resident_bytes", run=run, name="spender") > 1 << 20
    assert value(first, "process_open_fds", process="supervisor") > 5
    events = sum(row["events"] for row in house.ps())
    assert value(first, "events_recorded_total") == events
    status = house.sparrow("status").ok().out
    assert "1 run waits for an approval" in status
    assert f"2 runs ended, {events} events, $0.5000, 107 tokens" in status

    house.kill_supervisor()
    house.start()
    house.sparrow("approve", run).ok()
    house.outcome(run)
    house.sparrow("rm", *(row["run"] for row in house.ps())).ok()
    second = measured(house)
    assert sum(second["sparrow_runs"].values.values()) == 0
    assert value(second, "runs_ended_total", status="completed") == 2
    assert value(second, "events_recorded_total") == events + 2
    assert value(second, "cost_usd") == 0.5


def test_a_file_for_a_collector(house: House) -> None:
    path = Path(house.work / "sparrow.prom")
    house.sparrow("metrics", "-o", path).ok()
    assert read(path.read_text())["sparrow_up"].values == {(): 0}
    house.start()
    house.sparrow("metrics", "-o", path).ok()
    assert read(path.read_text())["sparrow_up"].values == {(): 1}
    assert [each.name for each in house.work.iterdir()] == ["sparrow.prom"]
    rows = house.sparrow("metrics", "--json").ok().rows()
    assert {"name": "sparrow_up", "type": "gauge", "labels": {}, "value": 1} in rows
    house.sparrow("metrics", "-o", house.work / "no" / "x.prom").refused(1, "no")


def test_doctor_tells_of_a_command_that_cannot_be_called(house: House) -> None:
    house.configure('[notify]\ncommand = "if true"\n')
    done = house.sparrow("doctor", "--json")
    assert done.code == 1
    (bad,) = [row for row in done.rows() if row["state"] == "fail"]
    assert bad["check"] == "notify"
    assert "sparrow config show" in bad["remedy"]
    house.configure('[notify]\ncommand = "true"\n')
    assert not [row for row in house.sparrow("doctor", "--json").ok().rows() if row["state"] == "fail"]
