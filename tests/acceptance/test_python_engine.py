"""Engine `python`: a function with a RunContext, forked, or in the caller's own interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import sparrow_mp
from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def run_function(house: House, body: str, *, name: str = "main", **more: Any) -> str:
    """Submit a file with this code; the run's id."""
    file = f"task_{abs(hash(body)) % 10**8}.py"
    house.write(file, body)
    return house.detach("-e", "python", f"{file}:{name}", **more)


def ended(house: House, body: str, **more: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run it to its end; its outcome and its events."""
    run = run_function(house, body, **more)
    return house.outcome(run), house.events(run)


# ── what it returns, and how it ends ──


def test_a_function_of_a_file_or_a_module_sync_or_async(shared: House):
    code = (
        "import asyncio\n"
        "def plain(run):\n    return {'task': run.task, 'folder': str(run.workspace)}\n"
        "async def waits(run):\n    await asyncio.sleep(0)\n    return [1, 2.5, None, 'é']\n"
        "class Nested:\n    @staticmethod\n    def function(run):\n        return 'nested'\n"
    )
    shared.write("package/functions.py", code)
    shared.write("package/__init__.py", "")
    outcomes = [
        shared.outcome(shared.detach("-e", "python", task))
        for task in ("package/functions.py:plain", "package.functions:waits", "package.functions:Nested.function")
    ]
    assert [outcome["status"] for outcome in outcomes] == ["completed"] * 3
    assert [outcome.get("result") for outcome in outcomes] == [
        {"task": "package/functions.py:plain", "folder": str(shared.work)}, [1, 2.5, None, "é"], "nested"]  # fmt: skip


def test_a_class_with_a_run_method(shared: House):
    body = "class main:\n    def __init__(self, run):\n        self.x = run.task\n    def run(self):\n        return len(self.x)\n"
    outcome, _ = ended(shared, body)
    assert outcome["status"] == "completed"
    assert outcome["result"] > 5


def test_no_result_is_no_field(shared: House):
    outcome, _ = ended(shared, "def main(run):\n    pass\n")
    assert "result" not in outcome


@pytest.mark.parametrize(
    ("body", "status", "code", "number"),
    [
        ("import sys\ndef main(run):\n    sys.exit(7)\n", "failed", 7, None),
        ("import sys\ndef main(run):\n    sys.exit()\n", "completed", 0, None),
        ("import sys\ndef main(run):\n    sys.exit('words')\n", "failed", 1, None),
        ("import os\ndef main(run):\n    os._exit(7)\n", "failed", 7, None),
        ("import os\ndef main(run):\n    os._exit(0)\n", "completed", 0, None),
        ("def main(run):\n    raise LookupError('no such thing')\n", "failed", 1, None),
        ("async def main(run):\n    raise LookupError('no such thing')\n", "failed", 1, None),
        ("import os\ndef main(run):\n    os.kill(os.getpid(), 11)\n", "crashed", None, 11),
        ("import os\ndef main(run):\n    os.abort()\n", "crashed", None, 6),
        ("def main(run):\n    raise SystemExit(300)\n", "failed", 44, None),
    ],
)
def test_how_it_ends(shared: House, body: str, status: str, code: int | None, number: int | None):
    outcome, events = ended(shared, body)
    assert (outcome["status"], outcome.get("exit_code"), outcome.get("signal")) == (status, code, number)
    if "LookupError" in body:
        assert outcome["reason"] == "LookupError: no such thing"
        assert events[-2] == {**events[-2], "type": "Error", "message": "LookupError: no such thing"}
        said = "\n".join(event["text"] for event in events if event["type"] == "Output")
        assert "Traceback" in said
        assert "raise LookupError" in said
        assert "sparrow_mp/run" not in said
    if "words" in body:
        assert "words" in [event["text"] for event in events if event["type"] == "Output"]


def test_a_segfault_loses_not_a_word(shared: House):
    body = (
        "import ctypes, sys\nfrom sparrow_mp import Message\n"
        "def main(run):\n"
        "    for n in range(200):\n"
        "        run.emit(Message(role='assistant', text=str(n)))\n"
        "        print(n, flush=True)\n"
        "    ctypes.string_at(0)\n"
    )
    for _ in range(5):
        outcome, events = ended(shared, body)
        assert (outcome["status"], outcome["signal"]) == ("crashed", 11)
        assert [event["text"] for event in events if event["type"] == "Message"] == [str(n) for n in range(200)]
        said = [event["text"] for event in events if event["type"] == "Output" and event["stream"] == "stdout"]
        assert said == [str(n) for n in range(200)]


def test_a_result_that_is_too_large_or_no_json_is_told_and_the_run_is_completed(shared: House):
    outcome, _ = ended(shared, "def main(run):\n    return 'x' * (1 << 20)\n")
    assert outcome["status"] == "completed"
    assert "result" not in outcome
    assert "result" in outcome["reason"]
    outcome, _ = ended(shared, "def main(run):\n    return {1, 2} | {object}\n")
    assert outcome["status"] == "completed"


def test_what_was_printed_and_not_flushed_comes_out_and_atexit_runs(shared: House):
    body = (
        "import atexit, sys, threading, time\n"
        "def main(run):\n"
        "    atexit.register(lambda: print('at exit'))\n"
        "    sys.stdout.write('no line break')\n"
        "    threading.Thread(target=lambda: (time.sleep(0.1), print(' late'))).start()\n"
    )
    outcome, events = ended(shared, body)
    assert outcome["status"] == "completed"
    text = "".join(
        event["text"] + ("" if event.get("partial") else "\n") for event in events if event["type"] == "Output"
    )
    assert "no line break" in text
    assert " late" in text
    assert "at exit" in text


# ── events ──


def test_emitted_events_are_numbered_and_keep_their_order_with_what_is_printed(shared: House):
    body = (
        "from sparrow_mp import Message, Progress, Custom, ToolOutput, CostUpdate, TokenUsage\n"
        "def main(run):\n"
        "    run.emit(Message(role='assistant', text='one'))\n"
        "    run.emit_many([Progress(done=n, total=3) for n in range(3)])\n"
        "    run.emit(Custom(name='mine', data={'x': [1, None]}))\n"
        "    run.emit(CostUpdate(usd=0.25))\n"
        "    run.emit(TokenUsage(input=10, output=20))\n"
    )
    outcome, events = ended(shared, body)
    assert [event["type"] for event in events] == [
        "RunStarted", "Message", "Progress", "Progress", "Progress", "Custom", "CostUpdate", "TokenUsage", "RunFinished"]  # fmt: skip
    assert events[5]["data"] == {"x": [1, None]}
    assert outcome["cost_usd"] == 0.25
    assert outcome["tokens"] == {"input": 10, "output": 20}


def test_what_emit_refuses(shared: House):
    body = (
        "import os\nfrom sparrow_mp import Message\n"
        "def main(run):\n"
        "    found = []\n"
        "    for thing in ('text', {'type': 'Message'}, None, Message):\n"
        "        try:\n            run.emit(thing)\n"
        "        except TypeError:\n            found.append('TypeError')\n"
        "    try:\n        run.emit(Message(role='assistant', text='x' * (1 << 20)))\n"
        "    except ValueError as error:\n        found.append('ValueError')\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        try:\n            run.emit(Message(role='assistant', text='from the child'))\n"
        "        except RuntimeError:\n            os._exit(42)\n"
        "        os._exit(0)\n"
        "    found.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "    run.emit(Message(role='assistant', text='after'))\n"
        "    return found\n"
    )
    outcome, events = ended(shared, body)
    assert outcome["result"] == ["TypeError"] * 4 + ["ValueError", 42]
    assert [event["text"] for event in events if event["type"] == "Message"] == ["after"]


def test_emit_from_many_threads(shared: House):
    body = (
        "import threading\nfrom sparrow_mp import Custom\n"
        "def main(run):\n"
        "    def work(name):\n"
        "        for n in range(500):\n            run.emit(Custom(name=name, data=n))\n"
        "    threads = [threading.Thread(target=work, args=(f't{n}',)) for n in range(8)]\n"
        "    [thread.start() for thread in threads]\n    [thread.join() for thread in threads]\n"
    )
    _, events = ended(shared, body)
    for name in (f"t{n}" for n in range(8)):
        assert [event["data"] for event in events if event.get("name") == name] == list(range(500))


def test_more_than_the_outbox_holds_waits_and_loses_nothing(house: House):
    house.configure("[run]\noutbox_bytes = 2097152\n")
    body = (
        "from sparrow_mp import Custom\n"
        "def main(run):\n"
        "    for n in range(3000):\n        run.emit(Custom(name='n', data=[n, 'x' * 5000]))\n"
    )
    outcome, events = ended(house, body)
    assert outcome["status"] == "completed"
    assert [event["data"][0] for event in events if event["type"] == "Custom"] == list(range(3000))


# ── messages and approvals ──


def test_injected_messages_arrive_in_order_once(shared: House):
    body = (
        "def main(run):\n"
        "    found = []\n"
        "    while not found or found[-1] != 'end':\n"
        "        found.append(run.next_message(timeout=60))\n"
        "    return found + list(run.messages()) + [run.next_message(timeout=0.01)]\n"
    )
    run = run_function(shared, body)
    words = ["one", "two\nlines", "é🎉", "", "end"]
    for word in words:
        shared.sparrow("inject", run, word).ok()
    assert shared.outcome(run)["result"] == [*words, None]
    assert [event["text"] for event in shared.events(run) if event["type"] == "Message"] == words


def test_an_async_engine_waits_for_messages_and_approvals(shared: House):
    body = (
        "async def main(run):\n"
        "    first = await run.next_message_async(timeout=60)\n"
        "    return [first, await run.ask_async('may I?', risk='Exec', timeout=60)]\n"
    )
    run = run_function(shared, body)
    shared.sparrow("inject", run, "hello").ok()
    eventually(lambda: shared.record(run)["waiting"], what="the question")
    shared.sparrow("approve", run).ok()
    assert shared.outcome(run)["result"] == ["hello", "Allow"]


@pytest.mark.parametrize(
    ("verb", "decision"),
    [
        (["approve"], "Allow"),
        (["deny"], "Deny"),
        (["approve", "--always"], "AllowAlways"),
        (["approve", "--once"], "AllowOnce"),
    ],
)
def test_an_approval(shared: House, verb: list[str], decision: str):
    run = run_function(shared, "def main(run):\n    return run.ask('delete it?', tool='rm', risk='Destructive')\n")
    eventually(lambda: shared.record(run)["waiting"], what="the question")
    (asked,) = [event for event in shared.events(run) if event["type"] == "ApprovalRequested"]
    assert (asked["summary"], asked["tool"], asked["risk"]) == ("delete it?", "rm", "Destructive")
    assert "waiting" in shared.sparrow("ps").ok().out
    name, *options = verb
    shared.sparrow(name, *options, run, "no-such-id").refused(2)
    shared.sparrow(name, *options, run, asked["id"]).ok()
    assert shared.outcome(run)["result"] == decision
    (told,) = [event for event in shared.events(run) if event["type"] == "ApprovalResolved"]
    assert (told["id"], told["decision"]) == (asked["id"], decision)


def test_nothing_to_approve(shared: House):
    run = run_function(shared, "def main(run):\n    return run.next_message()\n")
    shared.pid_of(run)
    shared.sparrow("approve", run).refused(2, "approval")
    shared.sparrow("inject", run, "x").ok()
    shared.outcome(run)


def test_an_approval_survives_the_supervisor(house: House):
    run = run_function(house, "def main(run):\n    return run.ask('may I?')\n")
    eventually(lambda: house.record(run)["waiting"], what="the question")
    house.kill_supervisor()
    house.start()
    eventually(lambda: house.record(run)["waiting"], what="the question, after the restart")
    house.sparrow("approve", run).ok()
    assert house.outcome(run)["result"] == "Allow"


# ── interruption ──


def test_an_interruption_raises_in_check_with_the_words(shared: House):
    body = (
        "from sparrow_mp import Interrupted, Message\n"
        "def main(run):\n"
        "    print('up', flush=True)\n"
        "    try:\n"
        "        while True:\n            run.check()\n"
        "    except Interrupted as asked:\n"
        "        run.emit(Message(role='assistant', text=f'tidying up: {asked}'))\n"
        "        raise\n"
    )
    run = run_function(shared, body)
    shared.says(run, "up")
    shared.sparrow("kill", run, "-m", "enough").ok()
    outcome = shared.outcome(run)
    assert (outcome["status"], outcome["reason"], outcome["forced"]) == ("interrupted", "enough", False)
    assert "tidying up: enough" in [event["text"] for event in shared.events(run) if event["type"] == "Message"]


@pytest.mark.parametrize(
    "waiting",
    [
        "run.next_message()",
        "run.ask('may I?')",
        "[run.emit(e) for e in iter(lambda: run.check() or Progress(done=1), 0)]",
    ],
)
def test_what_waits_hears_an_interruption(shared: House, waiting: str):
    body = f"from sparrow_mp import Progress\ndef main(run):\n    print('up', flush=True)\n    {waiting}\n"
    run = run_function(shared, body)
    shared.says(run, "up")
    shared.sparrow("kill", run).ok()
    outcome = shared.outcome(run)
    assert (outcome["status"], outcome["forced"]) == ("interrupted", False)


def test_an_async_engine_is_cancelled(shared: House):
    body = (
        "import asyncio\n"
        "async def main(run):\n"
        "    print('up', flush=True)\n"
        "    try:\n        await asyncio.sleep(1000)\n"
        "    except asyncio.CancelledError:\n"
        "        print('cancelled', run.interrupted, flush=True)\n"
        "        raise\n"
    )
    run = run_function(shared, body)
    shared.says(run, "up")
    shared.sparrow("kill", run).ok()
    assert shared.outcome(run)["status"] == "interrupted"
    assert "cancelled True" in shared.printed(run)


def test_a_result_although_interrupted(shared: House):
    body = "def main(run):\n    print('up', flush=True)\n    while not run.interrupted: pass\n    return 'so far'\n"
    run = run_function(shared, body)
    shared.says(run, "up")
    shared.sparrow("kill", run).ok()
    outcome = shared.outcome(run)
    assert (outcome["status"], outcome["result"]) == ("interrupted", "so far")


def test_an_engine_that_does_not_listen_is_killed_with_its_children(shared: House):
    body = (
        "import subprocess\n"
        "def main(run):\n"
        "    child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "    print(child.pid, flush=True)\n"
        "    while True:\n        pass\n"
    )
    run = run_function(shared, body)
    child = int(eventually(lambda: shared.printed(run)))
    shared.sparrow("kill", "--grace", "0.2", run).ok()
    assert shared.outcome(run)["forced"] is True
    assert not processes.alive(child)


# ── its process ──


def test_it_looks_like_a_fresh_interpreter(shared: House):
    body = (
        "import asyncio, multiprocessing, os, signal, subprocess, sys, threading\n"
        "def square(n):\n    return n * n\n"
        "def main(run):\n"
        "    with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "        squares = pool.map(square, [1, 2, 3])\n"
        "    said = subprocess.run(['sh', '-c', 'echo from a child; exit 3'], capture_output=True, text=True)\n"
        "    return [squares, said.stdout, said.returncode, threading.active_count(), os.getcwd(), sys.stdin.read(),\n"
        "            sys.argv, signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL]\n"
    )
    run = run_function(shared, body)
    shared.sparrow("inject", run, "--eof").ok()
    result = shared.outcome(run)["result"]
    assert result[:5] == [[1, 4, 9], "from a child\n", 3, 1, str(shared.work)]
    assert result[5] == ""
    assert result[7] is True


def test_it_is_forked_where_the_callers_python_is_the_supervisors(shared: House):
    run = run_function(shared, "import sys\ndef main(run):\n    return [sys.executable, run.next_message()]\n")
    monitor = shared.monitor_of(run)
    assert Path(f"/proc/{shared.pid_of(run)}/exe").samefile(f"/proc/{monitor}/exe")
    shared.sparrow("inject", run, "x").ok()
    assert shared.outcome(run)["result"][0] == sys.executable


def test_what_the_engine_forks_ends_at_sigterm_and_the_engine_does_not_hear_of_it(shared: House):
    body = (
        "import asyncio, multiprocessing, os, signal\n"
        "def square(n):\n    return n * n\n"
        "async def main(run):\n"
        "    for _ in range(30):\n"
        "        with multiprocessing.get_context('fork').Pool(2) as pool:\n"  # ends its workers with SIGTERM
        "            pool.map(square, [1, 2, 3])\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n        signal.pause()\n"
        "    os.kill(pid, signal.SIGTERM)\n"
        "    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
        "    await asyncio.sleep(0.05)\n"
        "    return [ended, run.interrupted]\n"
    )
    outcome, _ = ended(shared, body)
    assert outcome.get("result") == [-15, False], outcome


@pytest.fixture(scope="session")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment without sparrow."""
    folder = tmp_path_factory.mktemp("other")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    return folder


def packages(environment: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return environment / "lib" / version / "site-packages"


BODY = "import os, sys\ndef main(run):\n    print('hi')\n    return [sys.prefix, os.environ.get('MINE'), run.next_message(60)]\n"


def test_another_interpreter_with_sparrow_is_used(house: House, other_python: Path):
    ours = Path(sparrow_mp.__file__).resolve().parent.parent
    paths = [*(path for path in sys.path if path.endswith("site-packages")), str(ours)]
    file = packages(other_python) / "ours.pth"
    file.write_text("\n".join(dict.fromkeys(paths)) + "\n")
    try:
        run = run_function(house, BODY, env={"VIRTUAL_ENV": str(other_python), "MINE": "x"})
        house.sparrow("inject", run, "hello").ok()
        outcome = house.outcome(run)
    finally:
        file.unlink()
    assert (outcome["status"], outcome.get("result")) == ("completed", [str(other_python), "x", "hello"]), outcome
    assert house.printed(run) == "hi\n"
    assert house.events(run)[0]["type"] == "RunStarted"


def test_another_interpreter_without_sparrow_says_what_is_missing(house: House, other_python: Path):
    run = run_function(house, BODY, env={"VIRTUAL_ENV": str(other_python)})
    outcome = house.outcome(run)
    assert outcome["status"] == "rejected"
    assert "sparrow-mp is not installed" in outcome["reason"]
    assert str(other_python) in outcome["reason"]


def test_an_interpreter_that_is_not_there_is_told(house: House):
    run = run_function(house, BODY, env={"VIRTUAL_ENV": "/no/such/environment"})
    outcome = house.outcome(run)
    assert outcome["status"] == "rejected"
    assert "/no/such/environment" in outcome["reason"]


def test_other_python_settings_get_an_interpreter_of_their_own(house: House):
    extra = house.write("extra/only_here.py", "VALUE = 5\n").parent
    body = "import sys, only_here\ndef main(run):\n    return [only_here.VALUE, sys.flags.utf8_mode]\n"
    run = run_function(house, body, env={"PYTHONPATH": str(extra), "PYTHONUTF8": "1"})
    assert house.outcome(run).get("result") == [5, 1]
    run = run_function(house, body)
    assert house.outcome(run)["status"] == "rejected"


def test_code_is_read_anew_for_every_run(shared: House):
    shared.write("changing.py", "def main(run):\n    return 1\n")
    assert shared.outcome(shared.detach("-e", "python", "changing.py:main"))["result"] == 1
    shared.write("changing.py", "def main(run):\n    return 22\n")
    assert shared.outcome(shared.detach("-e", "python", "changing.py:main"))["result"] == 22
    assert shared.outcome(shared.detach("-e", "python", "changing:main"))["result"] == 22


def test_the_platforms_modules_are_all_there(shared: House):
    shared.write(
        "needs.py", "import sqlite3, ssl, zlib\ndef main(run):\n    import msgspec, zmq\n    return zmq.__version__\n"
    )
    assert shared.outcome(shared.detach("-e", "python", "needs.py:main"))["status"] == "completed"
    assert sysconfig.get_path("stdlib")
    assert os.path.isdir(shared.work)
