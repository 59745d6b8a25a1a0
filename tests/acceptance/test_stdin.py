"""A run's standard input: what is piped in, what is injected, and its end."""

from __future__ import annotations

import os
import random
import subprocess
import time

import pytest

from tests.support import processes
from tests.support.house import BIN, House
from tests.support.terminal import CTRL_C, CTRL_D, on_terminal
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def test_what_is_piped_in_is_forwarded_with_its_end(shared: House):
    assert shared.sparrow("run", "--", "sort", stdin="b\na\nc").ok().out == "a\nb\nc\n"
    assert shared.sparrow("run", "--", "wc", "-c", stdin=b"").ok().out.strip() == "0"


def test_binary_input_arrives_as_it_is(shared: House):
    data = random.Random(3).randbytes(700_000)
    done = shared.sparrow("run", "--", "sha256sum", stdin=data).ok()
    import hashlib

    assert done.out.split()[0] == hashlib.sha256(data).hexdigest()


def test_megabytes_through_a_run(shared: House):
    data = b"".join(b"%d\n" % n for n in range(400_000))
    done = shared.sparrow("run", "--", "cat", stdin=data).ok()
    assert done.stdout == data


def test_a_run_that_does_not_read_its_input_is_not_held_up(shared: House):
    began = time.monotonic()
    shared.sparrow("run", "--", "true", stdin=b"x\n" * 500_000).ok()
    assert time.monotonic() - began < 10


def test_input_is_not_taken_from_a_loop_that_reads_it_too(shared: House):
    script = f"while read line; do '{BIN}/sparrow' run --stdin null -- echo \"got $line\"; done"
    done = subprocess.run(
        ["sh", "-c", script], input=b"a\nb\nc\n", env=shared.env, cwd=shared.work, capture_output=True, timeout=30
    )
    assert done.stdout == b"got a\ngot b\ngot c\n"


def test_stdin_null_is_an_empty_input(shared: House):
    assert shared.sparrow("run", "--stdin", "null", "--", "cat", stdin="not this").ok().out == ""
    run = shared.detach("--stdin", "null", "--", "sh", "-c", "cat; until [ -e null-gate ]; do sleep 0.02; done")
    shared.pid_of(run)
    shared.sparrow("inject", run, "x").refused(1, "input")
    (shared.work / "null-gate").touch()
    assert shared.outcome(run)["status"] == "completed"
    assert "Message" not in [event["type"] for event in shared.events(run)]


def test_an_injected_message_is_one_line(shared: House):
    run = shared.detach("--", "cat")
    shared.sparrow("inject", run, "one").ok()
    shared.sparrow("inject", run, "two", "words").ok()
    shared.sparrow("redirect", run, "three").ok()
    shared.sparrow("inject", run, "-", stdin="four\nfive\n").ok()
    shared.sparrow("inject", run, "last", "--eof").ok()
    assert shared.outcome(run)["status"] == "completed"
    assert shared.printed(run) == "one\ntwo words\nthree\nfour\nfive\nlast\n"
    told = [(event["role"], event["text"]) for event in shared.events(run) if event["type"] == "Message"]
    assert told == [("user", text) for text in ("one", "two words", "three", "four", "five", "last")]


def test_input_stays_open_until_it_is_ended(shared: House):
    run = shared.detach("--", "sh", "-c", "echo up; cat; echo end")
    shared.says(run, "up")
    shared.sparrow("inject", run, "x").ok()
    shared.says(run, "x")
    assert shared.record(run)["status"] == "running"
    shared.sparrow("inject", run, "--eof").ok()
    assert shared.outcome(run)["status"] == "completed"
    assert shared.printed(run) == "up\nx\nend\n"


def test_after_its_end_nothing_more_is_taken(shared: House):
    run = shared.detach("--", "sh", "-c", "cat; echo end; until [ -e eof-gate ]; do sleep 0.02; done")
    shared.sparrow("inject", run, "--eof").ok()
    shared.says(run, "end")
    shared.sparrow("inject", run, "x").refused(1, "input")
    (shared.work / "eof-gate").touch()
    shared.outcome(run)


def test_what_is_injected_before_the_run_reads_waits_for_it(shared: House):
    run = shared.detach("--", "sh", "-c", "until [ -e late-gate ]; do sleep 0.02; done; cat")
    for number in range(50):
        if number % 10 == 0:
            shared.sparrow("inject", run, f"line {number}").ok()
    shared.sparrow("inject", run, "--eof").ok()
    (shared.work / "late-gate").touch()
    shared.outcome(run)
    assert shared.printed(run) == "".join(f"line {number}\n" for number in range(0, 50, 10))


def test_attach_injects_what_is_typed_and_ctrl_c_leaves_the_run_alone(shared: House):
    run = shared.detach("--", "sh", "-c", "while read line; do echo got $line; done; echo end")
    with on_terminal(shared, "attach", run) as terminal:
        eventually(lambda: "attached" in terminal.screen)
        terminal.type("hello\n")
        eventually(lambda: "got hello\r\n" in terminal.screen)
        terminal.type(CTRL_C)
        assert terminal.wait() == 0
    assert shared.record(run)["status"] == "running"
    with on_terminal(shared, "attach", run) as terminal:
        eventually(lambda: "attached" in terminal.screen)
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
        assert "end\r\n" in terminal.screen
    assert shared.outcome(run)["status"] == "completed"


def test_attach_from_a_pipe(shared: House):
    run = shared.detach("--", "sh", "-c", "read a; read b; echo $a-$b")
    done = shared.sparrow("attach", run, stdin="x\ny\n").ok()
    assert "x-y\n" in done.out


def test_a_message_as_long_as_may_be_and_one_over(shared: House):
    run = shared.detach("--", "wc", "-c")
    text = "x" * 100_000
    for _ in range(5):
        shared.sparrow("inject", run, text).ok()
    shared.sparrow("inject", run, "-", stdin="y" * (600 << 10)).refused(2, "limit")
    shared.sparrow("inject", run, "--eof").ok()
    shared.outcome(run)
    assert shared.printed(run).strip() == str(5 * 100_001)


def test_a_run_that_never_reads_can_be_ended_with_much_injected(shared: House):
    run = shared.detach("--", "sh", "-c", "echo up; until [ -e never ]; do sleep 0.05; done")
    shared.says(run, "up")
    for _ in range(10):
        shared.sparrow("inject", run, "x" * 100_000).ok()
    pid = shared.pid_of(run)
    shared.sparrow("kill", "--grace", "2", run).ok()
    assert not processes.alive(pid)
    assert shared.outcome(run)["status"] == "interrupted"


def test_a_reader_that_closes_its_input_loses_only_that(shared: House):
    run = shared.detach("--", "sh", "-c", "exec <&-; echo closed; until [ -e closed-gate ]; do sleep 0.02; done")
    shared.says(run, "closed")
    shared.sparrow("inject", run, "x")
    (shared.work / "closed-gate").touch()
    assert shared.outcome(run)["status"] == "completed"
    os.unlink(shared.work / "closed-gate")
