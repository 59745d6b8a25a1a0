"""`[notify]`: a command of the user's is called once when a run ends, or begins to wait for somebody."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support import processes
from tests.support.failpoints import Failpoints
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

ASKS = """
def twice(run):
    run.ask("remove the old ones", tool="rm", risk="Destructive")
    run.ask("and the new ones")

def at_once(run):
    import threading
    asking = [threading.Thread(target=run.ask, args=(f"part {n}",)) for n in range(3)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
"""


def configure(house: House, command: str, more: str = "") -> None:
    house.configure(f"[notify]\ncommand = {json.dumps(command)}\n{more}\n")


def told(house: House) -> list[dict[str, Any]]:
    """What the command of `say` was given, one after another; what is being written just now is not told yet."""
    path = house.work / "told"
    whole, _, _ = path.read_text().rpartition("\n") if path.exists() else ("", "", "")  # the last may still be written
    return [json.loads(line) for line in whole.splitlines()]


def say(house: House) -> str:
    """A command that notes what it is given, its environment first: who sees the call in `told` can read it."""
    return f"env > {house.work}/env.$SPARROW_EVENT.$SPARROW_RUN; cat >> {house.work}/told"


def log(house: House) -> str:
    return (house.state / "supervisor.log").read_text()


def env_of(house: House, event: str, run: str) -> dict[str, str]:
    lines = (house.work / f"env.{event}.{run}").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def settled(house: House) -> bool:
    """Whether there is nothing left to tell."""
    return not any((house.state / "notices").iterdir())


def test_it_is_told_once_of_each_end_with_the_facts_and_without_the_runs_environment(house: House) -> None:
    configure(house, say(house))
    runs = [
        house.detach("--name", "one", "--env", "MARK=a-secret", "exit 3"),
        house.detach("--engine", "command", "--", "no-such-program"),
        house.detach("true"),
    ]
    for run in runs:
        house.outcome(run)
    eventually(lambda: len(told(house)) >= 3 and settled(house), what="three calls")
    facts = {each["run"]: each for each in told(house)}
    assert facts.keys() == set(runs)
    assert len(told(house)) == 3
    failed, rejected, completed = (facts[run] for run in runs)
    assert (failed["event"], failed["status"], failed["exit_code"], failed["name"]) == ("ended", "failed", 3, "one")
    assert (rejected["status"], completed["status"]) == ("rejected", "completed")
    assert failed["ended"]
    env = env_of(house, "ended", runs[0])
    assert (env["SPARROW_EVENT"], env["SPARROW_STATUS"], env["SPARROW_EXIT_CODE"]) == ("ended", "failed", "3")
    assert (env["SPARROW_NAME"], env["SPARROW_TASK"], env["SPARROW_SIGNAL"]) == ("one", "exit 3", "")
    assert env_of(house, "ended", runs[2])["SPARROW_NAME"] == ""
    assert not [path for path in house.work.glob("env.*") if "a-secret" in path.read_text()]


def test_a_run_that_waits_is_told_once_each_time_it_begins_to(house: House) -> None:
    configure(house, say(house), 'on = ["waiting"]')
    house.write("asks.py", ASKS)
    run = house.detach("-e", "python", "asks.py:twice")
    eventually(lambda: len(told(house)) == 1, what="the first call")
    (first,) = told(house)
    assert first["approval"] == {**first["approval"], "summary": "remove the old ones", "tool": "rm"}
    assert (first["event"], first["waiting"]) == ("waiting", True)
    assert env_of(house, "waiting", run)["SPARROW_SUMMARY"] == "remove the old ones"

    house.kill_supervisor()
    house.start()  # which finds that it waits, and that this has been told
    house.sparrow("approve", run).ok()
    eventually(lambda: len(told(house)) == 2, what="the second call")
    assert told(house)[1]["approval"]["summary"] == "and the new ones"
    house.sparrow("deny", run).ok()
    house.outcome(run)

    run = house.detach("-e", "python", "asks.py:at_once")
    eventually(lambda: len(told(house)) == 3, what="the third call")

    def requests() -> int:
        return [event["type"] for event in house.events(run)].count("ApprovalRequested")

    # All of them: between the first one's answer and a later one's request it would not wait.
    eventually(lambda: requests() == 3, what="three requests")
    for _ in range(3):
        house.sparrow("approve", run).ok()
    house.outcome(run)
    eventually(lambda: settled(house), what="the end of all notices")
    assert len(told(house)) == 3, "three requests, but one wait; and no end, which was not asked for"


def test_a_command_that_hangs_or_fails_or_is_missing_is_told_in_the_log_and_stops_nobody(house: House) -> None:
    hang = (
        f"(setsid sleep 1000 & echo $! > {house.work}/pid); trap '' TERM; echo I hang >&2; while :; do sleep 1000; done"
    )
    configure(
        house,
        f'case $SPARROW_NAME in hang) {hang};; fail) echo no such luck >&2; exit 7;; gone) exec /no/such/program;; esac; {say(house)}',
        "timeout = 5",  # which those that do not hang are never to need
    )  # fmt: skip
    for name in ("hang", "fail", "gone", "fine"):
        house.detach("--name", name, "true")
    eventually(lambda: len(told(house)) == 1, what="the call that can be made, beside those that cannot")
    assert told(house)[0]["name"] == "fine"
    for words in (
        "it was not done after 5 s, and was killed; it said: I hang",
        "it ended with exit code 7; it said: no such luck",
        "it ended with exit code 127; it said: ",
    ):
        eventually(lambda words=words: words in log(house), 30, words)  # type: ignore[misc]
    sleeper = int((house.work / "pid").read_text())
    eventually(lambda: not processes.alive(sleeper), what="the end of what the command had started")
    eventually(lambda: settled(house), what="the end of all notices")


def test_never_more_than_a_few_at_once(house: House) -> None:
    count = f"""
    touch {house.work}/now.$$; ls {house.work} | grep -c ^now >> {house.work}/counts; sleep 0.05; rm {house.work}/now.$$
    """
    configure(house, count, "")
    runs = [house.detach("true") for _ in range(3)]
    assert runs
    house.sparrow("run", "-d", "true").ok()
    code = "from sparrow_mp import Client\nwith Client() as c:\n  for _ in range(30): c.submit('true', engine='shell')"
    assert house.python(code).code == 0
    counts = house.work / "counts"
    eventually(lambda: len(counts.read_text().split()) == 34 and settled(house), 40, "34 calls")
    assert max(map(int, counts.read_text().split())) <= 4


@pytest.mark.parametrize("point", ["notices.written", "ending.booked"])
def test_a_crash_in_between_neither_forgets_nor_repeats_it(house: House, point: str) -> None:
    configure(house, say(house))
    failpoints = Failpoints(house)
    house.start()
    failpoints.arm(point)
    run = house.detach("true")
    eventually(lambda: failpoints.struck(point), what="the supervisor's death")
    failpoints.supervised()
    house.outcome(run)
    eventually(lambda: told(house) and settled(house), what="the call")
    assert [each["status"] for each in told(house)] == ["completed"]


def test_a_crash_while_it_is_called_repeats_nothing(house: House) -> None:
    configure(
        house, f"cat >> {house.work}/told; while [ ! -e {house.work}/go ]; do sleep 0.02; done; touch {house.work}/done"
    )
    run = house.detach("true")
    eventually(lambda: len(told(house)) == 1, what="the call")
    house.kill_supervisor()
    house.start()
    (house.work / "go").touch()
    eventually((house.work / "done").exists, what="the end of what was being called")
    eventually(lambda: settled(house), what="the end of all notices")
    house.outcome(house.detach("true"))
    eventually(lambda: len(told(house)) == 2 and settled(house), what="the next call")
    assert [each["run"] for each in told(house)].count(run) == 1


def test_what_a_shutdown_ends_is_told_before_it_returns_and_nothing_hangs_it(house: House) -> None:
    configure(house, say(house))
    run = house.detach("sleep 1000")
    house.pid_of(run)
    house.sparrow("shutdown").ok()
    assert [(each["run"], each["status"]) for each in told(house)] == [(run, "interrupted")]


def test_another_command_and_none_after_a_reload(house: House) -> None:
    configure(house, "exit 1")
    house.start()
    configure(house, say(house))
    reload = "from sparrow_mp import Client\nwith Client() as sparrow: sparrow.reload()"
    assert house.python(reload).code == 0
    house.outcome(house.detach("true"))
    eventually(lambda: len(told(house)) == 1 and settled(house), what="the call of the new one")
    house.configure("")
    assert house.python(reload).code == 0
    house.outcome(house.detach("true"))
    assert settled(house)
    assert len(told(house)) == 1


def test_what_is_strange_among_the_notices_stops_no_supervisor_and_a_long_reason_no_call(house: House):
    house.write("engine.py", "def work(run):\n    raise RuntimeError('x' * 200_000)\n")
    configure(house, say(house))
    notices = house.state / "notices"
    house.state.mkdir(mode=0o700)
    notices.mkdir(mode=0o700)
    (notices / "README").touch()
    (notices / f"{'0' * 8}-0000-4000-8000-{'0' * 12}.ended.new").mkdir()
    run = house.detach("-e", "python", "engine.py:work")
    eventually(lambda: [each["run"] for each in told(house)] == [run], what="the call")
    assert len(told(house)[0]["reason"]) > 100_000
