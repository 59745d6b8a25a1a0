"""What a run writes: all of it, in order, as it is, and live."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from typing import Any

import pytest

from tests.support import processes
from tests.support.house import BIN, House
from tests.support.terminal import on_terminal
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def outputs(house: House, run: str) -> list[dict[str, Any]]:
    return [event for event in house.events(run) if event["type"] == "Output"]


def newest(house: House) -> str:
    return house.ps("-n", "1")[0]["run"]


def test_ten_megabytes_in_one_line(shared: House):
    size = 10 << 20
    done = shared.sparrow("run", "--", "sh", "-c", f"head -c {size} /dev/zero | tr '\\0' x; echo; echo end").ok()
    assert done.stdout == b"x" * size + b"\nend\n"
    found = outputs(shared, newest(shared))
    assert "".join(event["text"] for event in found) == "x" * size + "end"
    assert all(len(event["text"].encode()) <= 64 << 10 for event in found)
    assert [bool(event.get("partial")) for event in found[-3:]] == [True, False, False]


def test_a_long_line_is_never_split_within_a_character(shared: House):
    text = "aé漢🎉" * 40_000
    shared.write("long.txt", text + "\n")
    done = shared.sparrow("run", "--", "cat", "long.txt").ok()
    assert done.out == text + "\n"
    assert "\N{REPLACEMENT CHARACTER}" not in shared.printed(newest(shared))
    assert shared.printed(newest(shared)) == text + "\n"


def test_binary_output_is_there_with_what_is_not_utf_8_replaced(shared: House):
    noise = random.Random(7).randbytes(300_000)
    (shared.work / "noise").write_bytes(noise)
    shared.sparrow("run", "--", "cat", "noise").ok()
    found = outputs(shared, newest(shared))
    text = "".join(event["text"] + ("" if event.get("partial") else "\n") for event in found)
    assert text.removesuffix("\n") == noise.decode("utf-8", "replace").removesuffix("\n")


def test_every_control_character_survives(shared: House):
    text = "".join(map(chr, range(1, 32))) + "\x7f\u2028 \x1b[31mred\x1b[0m\r"
    shared.write("controls", text + "\n")
    assert shared.sparrow("run", "--", "cat", "controls").ok().out == text + "\n"
    assert shared.printed(newest(shared)) == text + "\n"


def test_a_thousand_lines_a_millisecond(shared: House):
    count = 300_000
    done = shared.sparrow("run", "--", "seq", str(count)).ok()
    expected = "".join(f"{n}\n" for n in range(1, count + 1))
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(expected.encode()).digest()
    assert shared.printed(newest(shared)) == expected


def test_streams_stay_apart_and_each_keeps_its_order(shared: House):
    script = "i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo out $i; echo err $i >&2; done"
    done = shared.sparrow("run", "--", "sh", "-c", script).ok()
    assert done.out == "".join(f"out {n}\n" for n in range(1, 501))
    assert done.err == "".join(f"err {n}\n" for n in range(1, 501))
    run = newest(shared)
    assert shared.printed(run, "stdout") == done.out
    assert shared.printed(run, "stderr") == done.err


def test_a_last_line_without_a_line_break_and_empty_lines(shared: House):
    shared.sparrow("run", "--", "printf", "\\n\\nlast").ok()
    assert [(event["text"], bool(event.get("partial"))) for event in outputs(shared, newest(shared))] == [
        ("", False), ("", False), ("last", False)]  # fmt: skip


def test_a_prompt_is_shown_before_its_line_is_finished(shared: House):
    with shared.begin(
        "run", "--", "sh", "-c", "printf 'name? '; read n; echo hello $n", stdin=subprocess.PIPE
    ) as going:
        eventually(lambda: going.out == "name? ", what="the prompt")
        assert going.process.stdin is not None
        going.process.stdin.write(b"you\n")
        going.process.stdin.flush()
        assert going.wait().out == "name? hello you\n"
    found = outputs(shared, newest(shared))
    assert [(event["text"], bool(event.get("partial"))) for event in found] == [("name? ", True), ("hello you", False)]


def test_nothing_is_lost_at_exit(shared: House):
    script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; done; printf rest; kill -9 $$"
    for _ in range(10):
        run = shared.detach("--", "sh", "-c", script)
        assert shared.outcome(run)["status"] == "crashed"
        assert shared.printed(run) == "".join(f"{n}\n" for n in range(1, 201)) + "rest\n"


def test_what_is_still_in_the_pipe_when_all_writers_are_killed_is_recorded(shared: House):
    run = shared.detach("--", "sh", "-c", "seq 20000; kill -STOP $$")
    pid = shared.pid_of(run)
    eventually(lambda: processes.state(pid) == "T")
    processes.kill(pid)
    assert shared.outcome(run)["status"] == "crashed"
    assert shared.printed(run) == "".join(f"{n}\n" for n in range(1, 20_001))


def test_output_is_live(shared: House):
    run = shared.detach("--", "sh", "-c", "echo first; read line; echo second")
    with shared.begin("logs", "-f", run) as going:
        eventually(lambda: "first" in going.out)
        shared.sparrow("inject", run, "go").ok()
        done = going.wait()
    assert done.code == 0
    assert done.out.index("first") < done.out.index("second") < done.out.index("completed")


def test_a_reader_that_leaves_is_a_quiet_end(shared: House):
    command = f"'{BIN}/sparrow' run -- yes | head -n 3"
    done = subprocess.run(["sh", "-c", command], env=shared.env, cwd=shared.work, capture_output=True, timeout=30)
    assert done.stdout == b"y\ny\ny\n"
    assert b"Traceback" not in done.stderr
    assert b"Broken" not in done.stderr
    # In a shell `yes` would have met the closed pipe.
    eventually(lambda: shared.record(newest(shared))["status"] == "interrupted", what="the end of `yes`")


@pytest.mark.parametrize("verb", ["logs", "replay --speed 0", "ps -a", "events"])
def test_a_closed_pipe_is_a_quiet_end_for_every_reader(shared: House, verb: str):
    run = shared.detach("--", "seq", "20000")
    shared.outcome(run)
    words = f"{verb} {run}" if verb[:2] in ("lo", "re") else f"{verb} --run {run}" if verb == "events" else verb
    script = f"'{BIN}/sparrow' {words} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], env=shared.env, cwd=shared.work, capture_output=True, timeout=30)
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1


def test_streams_that_are_closed_altogether(shared: House):
    run = shared.detach("--", "echo", "hi")
    shared.outcome(run)
    for command in (
        f"logs {run} >&-",
        f"logs {run} 2>&-",
        "run -- echo hi >&- 2>&-",
        "run -- echo hi <&-",
        "ps <&- >&- 2>&-",
    ):
        done = subprocess.run(
            ["sh", "-c", f"'{BIN}/sparrow' {command}"], env=shared.env, cwd=shared.work, capture_output=True, timeout=30
        )
        assert b"Traceback" not in done.stderr, (command, done)
        assert done.returncode == 0, (command, done)


def test_a_terminal_that_is_closed_leaves_the_run_and_its_record_whole(house: House):
    with on_terminal(
        house, "run", "--", "sh", "-c", "echo I am there; until [ -e gate ]; do sleep 0.01; done; seq 1000"
    ) as terminal:
        eventually(lambda: "I am there\r\n" in terminal.screen)
    (house.work / "gate").touch()
    run = newest(house)
    assert house.outcome(run)["status"] == "completed"
    assert house.printed(run) == "I am there\n" + "".join(f"{n}\n" for n in range(1, 1001))


def test_a_run_that_closes_its_output_goes_on(shared: House):
    run = shared.detach("--", "sh", "-c", "echo up; exec >&- 2>&-; read line; exit 4")
    shared.says(run, "up")
    shared.sparrow("inject", run, "x").ok()
    assert shared.outcome(run)["exit_code"] == 4


def test_a_run_has_no_descriptors_but_its_three(shared: House):
    done = shared.sparrow("run", "--", "sh", "-c", "ls /proc/$$/fd").ok()
    assert sorted(map(int, done.out.split())) == [0, 1, 2]


def test_a_run_has_clean_signals_and_leads_its_own_group(shared: House):
    done = shared.sparrow("run", "--", "grep", "-E", "^(SigIgn|SigBlk)", "/proc/self/status").ok()
    assert [int(line.split()[1], 16) for line in done.out.splitlines()] == [0, 0]
    leads = shared.sparrow("run", "--", "python3", "-c", "import os; print(os.getpgid(0) == os.getpid())").ok()
    assert leads.out == "True\n"


def test_a_flood_does_not_hold_up_the_others(shared: House):
    flood = shared.detach("--", "yes")
    eventually(lambda: len(outputs(shared, flood)) > 10_000, what="the flood")
    assert shared.sparrow("run", "--", "echo", "hi").ok().out == "hi\n"
    shared.sparrow("kill", "--now", flood).ok()
    outcome = shared.outcome(flood, timeout=60)
    assert outcome["status"] == "interrupted"
    os.unlink(shared.places.transcript(flood) / "events.jsonl")  # hundreds of megabytes are no good neighbours
