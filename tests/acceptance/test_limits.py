"""A run that reaches a limit ends for it, with all of its tree, says which one it was, and its siblings notice nothing."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.support import processes
from tests.support.control import ask, refusal
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

EATER = """
import os, time
print("up", os.getpid(), flush=True)
{wait}
eaten = [bytearray(b"x" * (1 << 20)) for _ in range(96)]
time.sleep(1000)
"""
SPENDER = """
import time
from sparrow_mp import CostUpdate

def spend(run):
    for n in range(1, 1000):
        run.emit(CostUpdate(usd=n / 10))
        time.sleep(0.005)
        run.check()
"""
GATE = "while not os.path.exists('go'): time.sleep(0.01)"

HOST = "for n in 1 2 3 4 5 6 7 8; do (trap '' TERM; sleep 1000) & done; wait"
OVER: dict[str, tuple[dict[str, Any], str, str]] = {
    "memory": ({"memory": 64 << 20, "argv": ["python3", "eater.py"]}, "out_of_memory", "the limit is 64 MiB"),
    "processes": ({"max_processes": 5, "task": HOST}, "over_limit", "more than 5 processes at once (max_processes)"),
    "output": ({"max_output": 100 << 10, "argv": ["yes"]}, "over_limit", "more than 100 KiB (max_output)"),
    "transcript": (
        {"max_transcript": 1 << 20, "engine": "python", "task": "talker.py:talk"},
        "over_limit",
        "more than 1 MiB (max_transcript)",
    ),
    "budget": ({"budget": 1.0, "engine": "python", "task": "spender.py:spend"}, "over_budget", "budget of 1.0000"),
    "time": ({"timeout": 0.3, "task": "sleep 1000"}, "timed_out", "longer than 0.3 s"),
}
CODES = {"memory": 137, "time": 124}


def running(house: House) -> list[int]:
    """What runs beside the house's own: the supervisor, the zygote and its spare monitor, the adapters."""
    told = house.status()
    own = {told["pid"], told["zygote_pid"], told["adapters_pid"]}
    return [pid for pid in house.processes() if pid not in own and processes.title(pid) != "sparrow: spare"]


@pytest.fixture
def furnished(house: House) -> House:
    house.write("eater.py", EATER.format(wait=""))
    house.write("gated_eater.py", EATER.format(wait=GATE))
    house.write("spender.py", SPENDER)
    house.write(
        "talker.py",
        "from sparrow_mp import Message\ndef talk(run):\n    while True: run.emit(Message(role='assistant', text='x' * 500))\n",
    )
    return house


def submit(house: House, requests: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The ids of these runs, all submitted by one process."""
    script = (
        "import json, sys\nfrom sparrow_mp import Client\n"
        "with Client() as sparrow:\n"
        "    for request in json.loads(sys.argv[1]): print(sparrow.submit(**request).id)\n"
    )
    done = house.python(script, json.dumps(list(requests.values())))
    assert done.code == 0, done
    return dict(zip(requests, done.out.split(), strict=True))


def test_each_limit_ends_the_run_with_a_status_and_a_reason(furnished: House):
    sibling = furnished.detach("--", "sh", "-c", "echo up; read line; echo got $line")
    furnished.says(sibling, "up")
    runs = submit(furnished, {name: request for name, (request, _, _) in OVER.items()})
    for name, run in runs.items():
        _, status, reason = OVER[name]
        outcome = furnished.outcome(run)
        assert outcome["status"] == status, outcome
        assert reason in outcome["reason"]
    for name, code in CODES.items():
        assert furnished.sparrow("wait", runs[name]).code == code
    furnished.sparrow("inject", sibling, "it").ok()
    assert furnished.outcome(sibling)["status"] == "completed"
    assert furnished.printed(sibling) == "up\ngot it\n"
    eventually(lambda: not running(furnished), what="the end of all trees")
    transcript = sum(path.stat().st_size for path in furnished.places.transcript(runs["transcript"]).glob("*.jsonl"))
    assert transcript < 12 << 20
    assert furnished.printed(runs["output"]) == "y\n" * (50 << 10)


def test_a_run_is_told_when_its_budget_is_nearly_spent(furnished: House):
    run = furnished.detach("--budget", "1", "-e", "python", "spender.py:spend")
    assert furnished.outcome(run)["status"] == "over_budget"
    told = [event["data"] for event in furnished.events(run) if event["type"] == "Custom"]
    assert told == [{"spent_usd": 0.8, "budget_usd": 1.0}]


def test_limits_hold_while_there_is_no_supervisor(furnished: House):
    furnished.write(
        "gated.py",
        f"import os, time\nfrom spender import spend as later\ndef spend(run):\n    {GATE}\n    later(run)\n",
    )
    gate = "while [ ! -e go ]; do sleep 0.01; done; "
    changed: dict[str, dict[str, Any]] = {
        "memory": {"argv": ["python3", "gated_eater.py"]},
        "processes": {"task": gate + HOST},
        "budget": {"task": "gated.py:spend"},
        "time": {"timeout": 8.0},  # which is more than it takes until the supervisor is killed
    }
    runs = submit(furnished, {name: {**OVER[name][0], **change} for name, change in changed.items()})
    folders = {name: furnished.places.run_folder(run) for name, run in runs.items()}
    eventually(lambda: not any((folder / "spec.json").exists() for folder in folders.values()), what="all have begun")
    furnished.kill_supervisor()
    furnished.write("go", "")
    for name, folder in folders.items():
        eventually((folder / "exit.json").exists, 30, f"the end of the one over its {name}")
    furnished.start()
    for name, run in runs.items():
        _, status, reason = OVER[name]
        outcome = furnished.outcome(run)
        assert outcome["status"] == status, outcome
        assert reason.split("0.3")[0] in outcome["reason"]


def test_memory_that_is_shared_counts_once_and_mapped_files_do_not(house: House):
    house.write(
        "sharer.py",
        "import mmap, os, sys\n"
        "data = bytearray(30 << 20)\n"
        "data[::4096] = b'x' * (len(data) // 4096)\n"
        "with open('big', 'wb') as f: f.write(bytes(100 << 20))\n"
        "mapped = mmap.mmap(os.open('big', os.O_RDONLY), 0, prot=mmap.PROT_READ)\n"
        "sum(mapped[n] for n in range(0, len(mapped), 4096))\n"
        "children = []\n"
        "for _ in range(4):\n"
        "    pid = os.fork()\n"
        "    if not pid: sys.stdin.readline(); os._exit(0)\n"
        "print('up', flush=True)\n"
        "sys.stdin.readline()\n",
    )
    run = house.detach("--memory", "64M", "--", "python3", "sharer.py")
    house.says(run, "up")
    eaters = house.detach("--memory", "64M", "--", "python3", "-c", "x = bytearray(b'x' * (80 << 20)); input()")
    assert house.outcome(eaters)["status"] == "out_of_memory"
    house.sparrow("inject", run, "--eof", "go").ok()
    assert house.outcome(run)["status"] == "completed"


def test_nice_slows_and_nothing_else(house: House):
    own = os.nice(0)
    run = house.detach("--nice", "7", "--", "nice")
    assert house.outcome(run)["status"] == "completed"
    assert house.printed(run) == f"{min(19, own + 7)}\n"


def test_a_limit_that_is_none_is_refused(house: House):
    house.start()
    for option in ("--memory=-1", "--memory=nan", "--max-processes=0", "--nice=-3", "--timeout=nan", "--budget=nan"):
        done = house.sparrow("run", option, "true").refused(2)
        assert len(done.err.strip().splitlines()) <= 4, done
    for field, value in (("memory", -1), ("memory", 1.5), ("memory", "lots"), ("memory", 0), ("max_processes", -1),
                         ("timeout", -1), ("budget", 0), ("nice", -1), ("nice", 20), ("max_output", True)):  # fmt: skip
        assert refusal(house, {"op": "submit", "task": "true", field: value}) == "bad_request", (field, value)
    assert house.ps() == []


def test_the_settings_say_what_a_run_has_that_brings_no_limits(furnished: House):
    furnished.configure('[run]\nmax_output = "10K"\n[engines.python]\nbudget = 0.5\n[engines.command]\nnice = 4\n')
    changed: dict[str, dict[str, Any]] = {
        "all": {"argv": ["yes"]},
        "engine": {"engine": "python", "task": "spender.py:spend"},
        "nice": {"argv": ["nice"]},
        "own": {"task": "seq 9000", "max_output": 1 << 20},
    }
    runs = submit(furnished, changed)
    outcomes = {name: furnished.outcome(run) for name, run in runs.items()}
    assert "more than 10 KiB (max_output)" in outcomes["all"]["reason"]
    assert "budget of 0.5000" in outcomes["engine"]["reason"]
    assert furnished.printed(runs["nice"]) == f"{min(19, os.nice(0) + 4)}\n"
    assert outcomes["own"]["status"] == "completed"


def test_who_submits_too_fast_is_told_when_to_try_again_and_the_library_does(house: House):
    house.configure("[supervisor]\nsubmit_rate = 0.5\nsubmit_burst = 2\n")
    house.start()
    replies = [ask(house, {"op": "submit", "task": "true"}) for _ in range(6)]
    refused = [reply["error"] for reply in replies if not reply["ok"]]
    assert refused
    assert all(error["code"] == "rate_limited" and 0 < error["retry_after"] <= 2 for error in refused)
    assert "try again in" in refused[0]["message"]
    assert house.sparrow("run", "true").ok().out == ""  # of another session
    runs = submit(house, {str(n): {"task": "true"} for n in range(3)})
    assert [house.outcome(run)["status"] for run in runs.values()] == ["completed"] * 3


def test_what_is_cut_of_a_short_runs_output_is_told(house: House):
    """It has ended before anybody has seen how much it printed."""
    for _ in range(5):
        argv = ["run", "-d", "--max-output", "100K", "--", "sh", "-c", "head -c 150000 /dev/zero | tr '\\0' x"]
        run = house.sparrow(*argv).ok().out.strip()
        outcome = house.outcome(run)
        assert outcome["status"] == "over_limit", outcome
        assert len(house.printed(run).rstrip("\n")) <= 100 << 10
