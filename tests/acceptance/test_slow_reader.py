"""What is piped into a run that does not read it: whoever writes waits, nothing is kept in memory, and nothing is lost."""

from __future__ import annotations

import hashlib
import os
import subprocess
from typing import IO

import pytest

from tests.support.control import ask, refusal
from tests.support.house import BIN, COMMAND_TIMEOUT_S, House
from tests.support.memory import resident
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

GATED = "echo up; until [ -e gate ]; do sleep 0.02; done; sha256sum"
MAY_BE_KEPT = 16 << 20


def has_been_handed_enough(house: House, run: str) -> bool:
    """Whether the run is handed nothing more. To find out, it is handed nothing: where that is taken, nothing has changed."""
    reply = ask(house, {"op": "inject", "run": run, "data": ""})
    return not reply["ok"] and reply["error"]["code"] == "rate_limited"


def stands_still(file: IO[bytes]) -> bool:
    """Whether nobody reads on in a file that is somebody's standard input; this process has the same place in it."""
    seen: list[int] = []

    def same() -> bool:
        seen.append(os.lseek(file.fileno(), 0, os.SEEK_CUR))
        return seen[-1] > 1 << 20 and len(seen) > 8 and len(set(seen[-8:])) == 1

    return eventually(same, 30, "a reader that waits")


def test_what_a_slow_reader_does_not_take_waits_outside_and_arrives_whole(house: House) -> None:
    data = b"".join(b"%015d\n" % number for number in range(1 << 20))
    source = house.work / "data"
    source.write_bytes(data)
    supervisor = house.start()["pid"]
    with source.open("rb") as file, house.begin("run", "--", "sh", "-c", GATED, stdin=file) as going:
        eventually(lambda: "up" in going.out)
        run = house.ps()[0]["run"]
        monitor = house.monitor_of(run)
        before = {pid: resident(pid) for pid in (monitor, supervisor)}
        # First, as whoever hands on what is read may only be slow: then it stands still, and more is taken afterwards.
        eventually(lambda: has_been_handed_enough(house, run), 30, "a run that takes no more")
        stands_still(file)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) < len(data) / 2
        grown = {pid: resident(pid) - size for pid, size in before.items()}
        assert max(grown.values()) < MAY_BE_KEPT, grown
        assert refusal(house, {"op": "inject", "run": run, "text": "one more"}) == "rate_limited"
        (house.work / "gate").touch()
        done = going.wait()
    assert done.ok().out.split() == ["up", hashlib.sha256(data).hexdigest(), "-"]


def test_a_run_that_waits_for_its_place_is_not_handed_more_than_may_be_kept(house: House) -> None:
    house.env["SPARROW_SUPERVISOR_MAX_RUNS"] = "1"
    first = house.detach("--", "sh", "-c", GATED)
    run = house.detach("--", "wc", "-c")
    text = "x" * 500_000
    codes = [house.sparrow("inject", run, "-", stdin=text).code for _ in range(4)]
    assert codes == [0, 0, 0, 1]
    house.sparrow("inject", run, "--eof").refused(1, "try again")
    house.sparrow("inject", first, "--eof").ok()
    (house.work / "gate").touch()
    house.outcome(first)
    # It begins only now, and while it has not taken what waits for it, nothing more is.
    eventually(
        lambda: [event["type"] for event in house.events(run)].count("Message") == 3, what="all that it was handed"
    )
    house.sparrow("inject", run, "--eof").ok()
    assert house.outcome(run)["status"] == "completed"
    assert house.printed(run).strip() == str(3 * len(text) + 3)


def test_a_closed_standard_input_is_an_ended_one(shared: House) -> None:
    command = ["sh", "-c", f"exec '{BIN}/sparrow' run -- sh -c 'cat; echo end' <&-"]
    done = subprocess.run(command, env=shared.env, cwd=shared.work, capture_output=True, timeout=COMMAND_TIMEOUT_S)
    assert (done.returncode, done.stdout) == (0, b"end\n"), done
