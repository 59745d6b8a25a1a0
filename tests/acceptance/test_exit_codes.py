"""How a run ended, and what `sparrow run` and `sparrow wait` exit with."""

from __future__ import annotations

import signal
import subprocess

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.terminal import CTRL_BACKSLASH, CTRL_C, on_terminal
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

SLEEPER = "trap 'echo asked; exit 5' TERM; echo I am there; while :; do sleep 0.02; done"
STUBBORN = "trap 'echo not yet' TERM; echo I am there; while :; do sleep 0.02; done"


def last_outcome(house: House) -> dict:
    row = house.ps("-n", "1")[0]
    return house.outcome(row["run"])


@pytest.mark.parametrize("code", [1, 7, 124, 126, 127, 130, 137, 255])
def test_a_commands_exit_code_is_told_as_it_is(shared: House, code: int):
    done = shared.sparrow("run", "--", "sh", "-c", f"exit {code}")
    assert done.code == code
    assert f"exit code {code}" in done.err
    outcome = last_outcome(shared)
    assert (outcome["status"], outcome["exit_code"], outcome.get("signal")) == ("failed", code, None)
    assert outcome["forced"] is False
    assert outcome["usage"]["max_rss_bytes"] > 0


def test_a_missing_program_is_rejected_with_the_reason_and_127(shared: House):
    done = shared.sparrow("run", "--", "no-such-program-anywhere", "-x")
    done.refused(127, "rejected", "no-such-program-anywhere")
    outcome = last_outcome(shared)
    assert (outcome["status"], outcome["exit_code"]) == ("rejected", 127)
    assert "not found" in outcome["reason"]
    types = [event["type"] for event in shared.events(shared.ps("-n", "1")[0]["run"])]
    assert types == ["Error", "RunFinished"]


@pytest.mark.parametrize("what", ["not executable", "a folder", "no interpreter"])
def test_what_cannot_be_executed_is_rejected_with_126(shared: House, what: str):
    path = shared.write(f"tool-{len(what)}", "#!/no/such/interpreter\n")
    if what == "a folder":
        path.unlink()
        path.mkdir()
    elif what == "no interpreter":
        path.chmod(0o755)
    done = shared.sparrow("run", "--", f"./{path.name}")
    assert done.code == (127 if what == "no interpreter" else 126), done  # as a shell has it
    assert last_outcome(shared)["status"] == "rejected"


@pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("SEGV", 11), ("HUP", 1), ("INT", 2), ("USR1", 10)])
def test_a_signal_from_nobody_is_a_crash(shared: House, name: str, number: int):
    done = shared.sparrow("run", "--", "sh", "-c", f"echo last words; kill -{name} $$")
    assert (done.code, done.out) == (128 + number, "last words\n")
    outcome = last_outcome(shared)
    assert (outcome["status"], outcome["signal"], outcome.get("exit_code")) == ("crashed", number, None)


def test_a_timeout_is_124(shared: House):
    # Long enough for the shell to set its trap, however busy the machine is.
    done = shared.sparrow("run", "--timeout", "3", "--", "sh", "-c", SLEEPER)
    assert done.code == 124
    assert done.out == "I am there\nasked\n"
    assert "timed out" in done.err
    outcome = last_outcome(shared)
    assert outcome["status"] == "timed_out"
    assert "3 s" in outcome["reason"]


def test_a_run_that_ends_in_time_has_not_timed_out(shared: House):
    shared.sparrow("run", "--timeout", "20", "--", "true").ok()
    assert last_outcome(shared)["status"] == "completed"


def test_wait_exits_as_the_run_did(shared: House):
    seven = shared.detach("--", "sh", "-c", "exit 7")
    fine = shared.detach("--", "true")
    gone = shared.detach("--", "no-such-program-anywhere")
    killed = shared.detach("--", "sh", "-c", "kill -9 $$")
    assert shared.sparrow("wait", fine).code == 0
    assert shared.sparrow("wait", seven).code == 7
    assert shared.sparrow("wait", gone).code == 127
    assert shared.sparrow("wait", killed).code == 137
    assert shared.sparrow("wait", fine, killed, seven).code == 137
    assert shared.sparrow("wait", seven, killed).code == 7


def test_wait_gives_up_after_its_own_timeout_and_leaves_the_run_alone(shared: House):
    run = shared.detach("--", "sh", "-c", "read x")
    shared.pid_of(run)  # it runs
    shared.sparrow("wait", run, "--timeout", "0.2").refused(124, "not ended")
    assert shared.record(run)["status"] == "running"
    shared.sparrow("inject", run, "x").ok()
    shared.sparrow("wait", run).ok()


def test_ctrl_c_interrupts_and_exits_130(shared: House):
    with on_terminal(shared, "run", "--", "sh", "-c", SLEEPER) as terminal:
        eventually(lambda: "I am there\r\n" in terminal.screen)
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert "interrupting" in terminal.screen
        assert "asked" in terminal.screen
    row = shared.ps("-n", "1")[0]
    outcome = shared.outcome(row["run"])
    assert (outcome["status"], outcome["exit_code"], outcome["forced"]) == ("interrupted", 5, False)
    types = [event["type"] for event in shared.events(row["run"])]
    assert types[-2:] == ["Error", "RunFinished"]
    assert shared.events(row["run"])[-2]["message"] == "interrupted"


def test_a_second_ctrl_c_kills(shared: House):
    with on_terminal(shared, "run", "--", "sh", "-c", STUBBORN) as terminal:
        eventually(lambda: "I am there\r\n" in terminal.screen)
        terminal.type(CTRL_C)
        eventually(lambda: "not yet\r\n" in terminal.screen)
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert "killing" in terminal.screen
    outcome = last_outcome(shared)
    assert (outcome["status"], outcome["forced"]) == ("interrupted", True)


def test_a_signal_to_the_command_line_does_the_same_as_the_key(shared: House):
    with shared.begin("run", "--", "sh", "-c", SLEEPER) as going:
        eventually(lambda: "I am there" in going.out)
        going.signal(signal.SIGINT)
        assert going.wait().code == 130
    assert last_outcome(shared)["status"] == "interrupted"


def test_ctrl_backslash_leaves_the_run_alone(shared: House):
    with on_terminal(shared, "run", "--", "sh", "-c", "echo I am there; read line; echo got $line") as terminal:
        eventually(lambda: "I am there\r\n" in terminal.screen)
        terminal.type(CTRL_BACKSLASH)
        assert terminal.wait() == 0
        assert "sparrow attach" in terminal.screen
    run = shared.ps("--status", "running")[0]["run"]
    shared.sparrow("inject", run, "it").ok()
    shared.sparrow("wait", run).ok()
    assert "got it" in shared.printed(run)


def test_a_command_line_that_is_killed_leaves_the_run_alone(shared: House):
    with shared.begin("run", "--", "sh", "-c", "echo I am there; read line; exit 4", stdin=subprocess.PIPE) as going:
        eventually(lambda: "I am there" in going.out)
        going.signal(signal.SIGKILL)
        going.wait()
    run = shared.ps("--status", "running")[0]["run"]
    assert processes.alive(shared.pid_of(run))
    shared.sparrow("inject", run, "").ok()
    assert shared.sparrow("wait", run).code == 4
