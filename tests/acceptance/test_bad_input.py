"""Each fault gets a clear sentence and the right code, and loses nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest
import zmq

from tests.support.control import ask, connected, refusal
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

NOBODY = "00000000-0000-4000-8000-000000000000"


def ended(house: House) -> str:
    run = house.detach("--", "true")
    house.outcome(run)
    return run


# ── runs ──


@pytest.mark.parametrize("verb", [["inject", NOBODY, "x"], ["kill", NOBODY], ["wait", NOBODY], ["attach", NOBODY],
                                  ["logs", NOBODY], ["replay", NOBODY], ["rm", NOBODY], ["approve", NOBODY],
                                  ["deny", NOBODY], ["events", "--run", NOBODY]], ids=lambda verb: verb[0])  # fmt: skip
def test_no_such_run(shared: House, verb: list[str]):
    shared.start()
    shared.sparrow(*verb).refused(3, f"No active run with id {NOBODY}")


def test_no_such_run_on_the_control_socket(shared: House):
    shared.start()
    for request in (
        {"op": "get", "run": NOBODY},
        {"op": "events", "run": NOBODY},
        {"op": "inject", "run": NOBODY, "text": "x"},
        {"op": "interrupt", "run": NOBODY},
        {"op": "approve", "run": NOBODY, "decision": "Allow"},
        {"op": "get", "run": ""},
        {"op": "get", "run": "%"},
        {"op": "get", "run": "../../etc"},
    ):
        assert refusal(shared, request) == "no_such_run", request


def test_an_ambiguous_name_or_prefix(shared: House):
    for _ in range(2):
        shared.outcome(shared.detach("--name", "twin", "--", "true"))
    # The 17th run must share its first digit with another one.
    seen: set[str] = {row["run"][0] for row in shared.ps()}
    runs = [row["run"] for row in shared.ps()]
    while len(seen) == len(runs):
        runs.append(shared.detach("--", "true"))
        seen.add(runs[-1][0])
    (first,) = {run[0] for run in runs if [other[0] for other in runs].count(run[0]) > 1} or {""}
    shared.sparrow("logs", first).refused(3)
    assert refusal(shared, {"op": "get", "run": first}) == "ambiguous_run"


@pytest.mark.parametrize("verb", ["inject", "kill", "attach", "approve", "deny"])
def test_a_run_that_has_ended(shared: House, verb: str):
    run = ended(shared)
    before = shared.events(run)
    args = [verb, run, "x"] if verb == "inject" else [verb, run]
    shared.sparrow(*args).refused(1, "ended")
    assert shared.events(run) == before


def test_a_run_that_has_ended_on_the_control_socket(shared: House):
    run = ended(shared)
    assert refusal(shared, {"op": "inject", "run": run, "text": "x"}) == "not_running"
    assert refusal(shared, {"op": "interrupt", "run": run}) == "not_running"
    assert refusal(shared, {"op": "approve", "run": run, "decision": "Allow"}) == "not_running"


# ── submitting ──


def test_an_unknown_engine(shared: House):
    shared.sparrow("run", "-e", "shel", "true").refused(2, "shel", "did you mean `shell`")
    assert refusal(shared, {"op": "submit", "task": "x", "engine": "zzz"}) == "no_such_engine"


def test_an_engine_that_fails_to_import_is_a_rejected_run_with_the_reason(shared: House):
    shared.write("broken.py", "import no_such_module_at_all\n\ndef main(run):\n    pass\n")
    done = shared.sparrow("run", "-e", "python", "broken.py:main")
    assert done.code == 1
    assert "no_such_module_at_all" in done.err
    run = shared.ps("-n", "1")[0]["run"]
    outcome = shared.outcome(run)
    assert outcome["status"] == "rejected"
    assert "ModuleNotFoundError" in outcome["reason"]
    assert [event["type"] for event in shared.events(run)][-2:] == ["Error", "RunFinished"]


@pytest.mark.parametrize(
    "task", ["nowhere.py:main", "json:nothing", "nowhere_at_all:main", "notatask", "json:__doc__", ":"]
)
def test_a_python_task_that_names_no_function_is_rejected(shared: House, task: str):
    done = shared.sparrow("run", "-e", "python", task)
    assert done.code == 1, done
    assert "rejected" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("args", [["run"], ["run", ""], ["run", "  "], ["run", "--"], ["run", "--", ""]])
def test_an_empty_task_makes_no_run(shared: House, args: list[str]):
    shared.start()
    before = len(shared.ps())
    shared.sparrow(*args).refused(2)
    assert len(shared.ps()) == before


def test_an_empty_task_on_the_control_socket(shared: House):
    shared.start()
    before = len(shared.ps())
    requests: list[dict] = [{"task": ""}, {"task": " \n"}, {"argv": []}, {"argv": [""]}, {}]
    for request in requests:
        assert refusal(shared, {"op": "submit", **request}) == "bad_request", request
    assert len(shared.ps()) == before


def test_a_task_over_the_limit(shared: House):
    shared.start()
    before = len(shared.ps())
    assert refusal(shared, {"op": "submit", "task": "x" * (300 << 10)}) == "too_large"
    assert refusal(shared, {"op": "submit", "task": "true", "env": {"A": "x" * (5 << 20)}}) == "too_large"
    big = ("sparrow run -- true " + "x" * 120_000 + " " + "y" * 120_000 + " " + "z" * 120_000).split()[1:]
    shared.sparrow(*big).refused(2, "limit")
    assert len(shared.ps()) == before


def test_a_folder_that_is_not_there(shared: House):
    shared.start()
    before = len(shared.ps())
    file = shared.write("a-file", "")
    for folder in ("/no/such/folder", str(file), "not/there"):
        shared.sparrow("run", "--cwd", folder, "true").refused(2, "folder")
    assert refusal(shared, {"op": "submit", "task": "x", "cwd": "/no/such/folder"}) == "bad_request"
    assert refusal(shared, {"op": "submit", "task": "x", "cwd": "relative"}) == "bad_request"
    assert len(shared.ps()) == before


def test_the_callers_folder_has_been_deleted(shared: House):
    folder = shared.work / "gone"
    folder.mkdir()
    done = shared.python(
        "import os, subprocess, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]);"
        "sys.exit(subprocess.run(['sparrow', 'run', 'true']).returncode)",
        str(folder),
    )
    assert done.code == 2
    assert "deleted" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "args",
    [["--timeout", "-1"], ["--timeout", "soon"], ["--timeout", "0"], ["--budget", "-1"], ["--name", "a b"], ["--name", ""],
     ["--env", "NOT_SET_ANYWHERE"], ["--env", "=x"], ["--autonomy", "wild"], ["--no-such-option"], ["--stdin", "file"]],
    ids=" ".join,
)  # fmt: skip
def test_options_that_make_no_sense(shared: House, args: list[str]):
    shared.start()
    before = len(shared.ps())
    shared.sparrow("run", *args, "true").refused(2)
    assert len(shared.ps()) == before


def test_wrong_usage_is_2_with_a_hint(shared: House):
    shared.sparrow("runn", "true").refused(2, "did you mean `run`")
    shared.sparrow("ps", "--wrong").refused(2)
    shared.sparrow("kill").refused(2)
    shared.sparrow("inject", "x").refused(2)


# ── the configuration ──


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[ndjson]\ntpc = 'x'\n", ["ndjson.tpc", "did you mean `tcp`"]),
        ("[njson]\ntcp = ''\n", ["njson", "did you mean `ndjson`"]),
        ("[run]\ngrace = 'long'\n", ["run.grace"]),
        ("[run]\ngrace = -1\n", ["run.grace"]),
        ("[supervisor]\nmax_runs = 1.5\n", ["supervisor.max_runs"]),
        ("[run\ngrace = 1\n", ["TOML", "line 1"]),
        ("run = 3\n", ["run"]),
        ("[ndjson]\ntcp = '0.0.0.0:1'\n", ["ndjson.tcp", "127.0.0.1"]),
    ],
)
def test_a_config_file_that_is_wrong_names_the_file_and_the_key(house: House, text: str, words: list[str]):
    house.configure(text)
    env = {name: value for name, value in house.env.items() if name != "SPARROW_TCP"}
    house.env = env
    file = str(house.places.config)
    done = house.sparrow("supervisor").refused(2, file, *words)
    assert "Traceback" not in done.err
    started = house.sparrow("run", "true")
    assert started.code == 69, started
    assert words[0] in started.err
    assert file in started.err
    assert not house.supervised


def test_a_wrong_variable_is_named(house: House):
    house.sparrow("supervisor", env={"SPARROW_RUN_GRACE": "long"}).refused(2, "SPARROW_RUN_GRACE")
    house.sparrow("supervisor", env={"SPARROW_TCP": "nonsense"}).refused(2, "nonsense")


def test_a_reload_of_a_wrong_config_keeps_the_old_one(house: House):
    house.start()
    house.configure("[run]\nengin = 'x'\n")
    assert refusal(house, {"op": "reload"})
    house.sparrow("run", "true").ok()
    house.configure("[run]\nengine = 'python'\n")
    assert ask(house, {"op": "reload"})["ok"]
    house.write("a.py", "def main(run):\n    print('by default')\n")
    assert house.sparrow("run", "a.py:main").ok().out == "by default\n"


# ── places ──


def test_a_state_folder_that_is_not_writable(house: House):
    blocked = house.top / "file"
    blocked.write_text("")
    house.sparrow("run", "true", env={"SPARROW_STATE_DIR": str(blocked / "s")}).refused(69, str(blocked))
    house.sparrow("supervisor", env={"SPARROW_STATE_DIR": str(blocked / "s")}).refused(1, str(blocked))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_state_folder_that_is_somebody_elses(house: House):
    theirs = house.top / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 12345, 12345)
    for variable in ("SPARROW_STATE_DIR", "SPARROW_RUNTIME_DIR"):
        done = house.sparrow("supervisor", env={variable: str(theirs)}).refused(1, str(theirs))
        assert "belongs to" in done.err or "user" in done.err


def test_something_else_in_the_place_of_a_file_is_refused_and_neither_followed_nor_waited_for(house: House):
    state, elsewhere = house.places.state, house.top / "elsewhere"
    for folder in (state, house.runtime, house.places.transcripts):
        folder.mkdir(mode=0o700, exist_ok=True)
    links = (house.runtime / "lock", house.places.zygote_log, house.places.index)
    for path in (*links, state / "lock", house.places.log):
        path.unlink(missing_ok=True)
        if path in links:
            path.symlink_to(elsewhere)
        else:
            os.mkfifo(path)
        house.sparrow("run", "true").refused(69, str(path), "move that away")
        if path == state / "lock":
            assert str(path) in house.sparrow("doctor").refused(1).out
        path.unlink()
    assert not elsewhere.exists()
    house.sparrow("run", "true").ok()


def test_a_state_folder_that_is_open_to_others_or_behind_a_link_is_refused(house: House):
    wide = house.top / "wide"
    wide.mkdir()
    wide.chmod(0o755)
    house.sparrow("supervisor", env={"SPARROW_STATE_DIR": str(wide)}).refused(1, str(wide), "chmod 700")
    real = house.top / "real"
    real.mkdir(mode=0o700)
    link = house.top / "link"
    link.symlink_to(real)
    house.sparrow("supervisor", env={"SPARROW_STATE_DIR": str(link)}).refused(1, str(link), "link")
    assert list(real.iterdir()) == []


def test_a_port_in_use_is_told_and_the_supervisor_goes_on_without_tcp(house: House):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        house.env["SPARROW_TCP"] = f"127.0.0.1:{port}"
        assert house.sparrow("run", "--", "echo", "hi").ok().out == "hi\n"
        told = house.status()
        assert told["tcp"] is None
        assert any(str(port) in problem for problem in told["problems"])
        assert str(port) in house.sparrow("status").ok().out
        assert told["unix"] == str(house.places.unix_socket)
    assert str(port) in (house.state / "supervisor.log").read_text()


def test_an_empty_tcp_address_switches_tcp_off(house: House):
    house.env["SPARROW_TCP"] = ""
    assert house.start()["tcp"] is None
    assert house.status()["problems"] == []


@pytest.mark.parametrize("variable", ["SPARROW_STATE_DIR", "SPARROW_RUNTIME_DIR"])
def test_a_path_that_is_too_long_for_a_socket(house: House, variable: str):
    long = house.top / ("x" * 100)
    long.mkdir(mode=0o700)
    if variable == "SPARROW_RUNTIME_DIR":
        done = house.sparrow("supervisor", env={variable: str(long)}).refused(1, "too long", str(long))
        assert "107" in done.err
    else:
        house.env[variable] = str(long)
        house.sparrow("run", "--", "true").ok()
        told = house.status()
        assert told["unix"] is None
        assert any("too long" in problem and "107" in problem for problem in told["problems"])


# ── the control socket ──


@pytest.mark.parametrize(
    "body",
    [b"", b"\0\xff\xfe garbage", b"{", b"[]", b"1", b'"op"', b"null", b"{}", b'{"op":1}', b'{"op":"fly"}', b'{"op":"get"}',
     b'{"op":"get","run":7}', b'{"op":"submit","task":"x","tsak":1}', b'{"op":"submit","task":"x","timeout":"soon"}',
     b'{"op":"submit","task":"x","timeout":-1}', b'{"op":"submit","task":"x","timeout":1e999}',
     b'{"op":"submit","task":"x","env":{"A=B":"c"}}', b'{"op":"submit","task":"a\\u0000b"}', b"[" * 10000,
     b'{"op":"submit","argv":["x"],"engine":"shell"}', b'{"op":"list","limit":-5}', b'{"op":"events","run":"x","since":-1}',
     b'{"op":"status"} trailing', b'{"op":"submit","task":"\xff"}'],
    ids=lambda body: repr(body[:40]),
)  # fmt: skip
def test_garbage_on_the_control_socket_is_a_bad_request(shared: House, body: bytes):
    shared.start()
    assert refusal(shared, body) == "bad_request"
    assert ask(shared, {"op": "status"})["ok"]


def test_a_request_that_is_too_large(shared: House):
    shared.start()
    assert refusal(shared, b'{"op":"get","run":"' + b"x" * (4 << 20) + b'"}') == "too_large"
    assert ask(shared, {"op": "status"})["ok"]


def test_frames_that_are_no_request_at_all(shared: House):
    shared.start()
    with connected(shared, zmq.DEALER) as dealer:
        dealer.send(b'{"op":"status"}')  # without the empty frame
        assert json.loads(dealer.recv_multipart()[-1])["error"]["code"] == "bad_request"
        dealer.send_multipart([b"", b"one", b"two"])
        assert json.loads(dealer.recv_multipart()[-1])["error"]["code"] == "bad_request"
        dealer.send_multipart([b"", b'{"op":"status"}'])
        assert json.loads(dealer.recv_multipart()[-1])["ok"] is True
        for _ in range(300):
            dealer.send_multipart([b"", b'{"op":"status"}'])
        for _ in range(300):
            assert json.loads(dealer.recv_multipart()[-1])["ok"] is True
    with connected(shared, zmq.PUSH) as push:
        push.send(b"x")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(shared.runtime / "control.sock"))
        raw.sendall(os.urandom(4096))
    assert ask(shared, {"op": "status"})["ok"]


# ── events of a run ──

LIAR = """
import json
from sparrow_mp import Message
from sparrow_mp.run import outbox

def main(run):
    run.emit(Message(role="assistant", text="before"))
    honest = outbox.encode
    run._outbox.append_one = lambda event: False
    outbox.Outbox._encoded_at_once = lambda *_: (b"", 0)
    outbox.encode = lambda event: CHANGE(honest(event), event)
    run.emit(Message(role="assistant", text="lie"))
    outbox.encode = honest
    run.emit(Message(role="assistant", text="after"))
    print("printed after", flush=True)
"""


def lie(house: House, change: str) -> tuple[str, list[dict]]:
    house.write("liar.py", LIAR.replace("CHANGE", f"({change})"))
    run = house.detach("-e", "python", "liar.py:main")
    house.outcome(run)
    return run, house.events(run)


@pytest.mark.parametrize(
    "change",
    [
        "lambda line, event: line[:-5]",
        "lambda line, event: b'garbage'",
        "lambda line, event: b'[1]'",
        "lambda line, event: b''",
        'lambda line, event: line.replace(b\'"text":"lie"\', b\'"text":7\')',
        'lambda line, event: line.replace(b\'"text":"lie"\', b\'"nothing":0\')',
        "lambda line, event: line.replace(b'lie', b'\\xff\\xfe')",
        "lambda line, event: line.replace(event.ts.encode(), b'yesterday')",
        "lambda line, event: line.replace(b'\"Message\"', b'7')",
        "lambda line, event: b'[' * 5000",
    ],
)
def test_a_malformed_event_is_recorded_as_an_error_of_that_run(shared: House, change: str):
    _, events = lie(shared, change)
    assert [event["type"] for event in events] == [
        "RunStarted", "Message", "Error", "Message", "Output", "RunFinished"]  # fmt: skip
    assert "malformed" in events[2]["message"]
    assert events[-1]["outcome"]["status"] == "completed"


@pytest.mark.parametrize(
    "change",
    [
        "lambda line, event: line.replace(event.run.encode(), b'00000000-0000-4000-8000-000000000000')",
        "lambda line, event: line.replace(b'\"seq\":%d' % event.seq, b'\"seq\":%d' % (event.seq + 7))",
        "lambda line, event: line.replace(b'\"seq\":%d' % event.seq, b'\"seq\":1')",
    ],
)
def test_an_event_with_a_wrong_run_or_seq_ends_the_run_as_failed(shared: House, change: str):
    _, events = lie(shared, change)
    assert [event["type"] for event in events[:2]] == ["RunStarted", "Message"]
    assert [event["type"] for event in events[-2:]] == ["Error", "RunFinished"]
    assert "after" not in json.dumps(events[:-2])
    assert events[-1]["outcome"]["status"] == "failed"
    assert "wrong" in events[-1]["outcome"]["reason"]
    assert events[-2]["message"] == events[-1]["outcome"]["reason"]


def test_an_engine_cannot_say_what_is_the_supervisors_to_say(shared: House):
    shared.write(
        "usurper.py",
        "from sparrow_mp import RunFinished, RunStarted, RunQueued, Outcome\n"
        "def main(run):\n"
        "    for event in (RunFinished(outcome=Outcome(status='completed')), RunStarted(task='x', agent='y'),\n"
        "                  RunQueued(task='x', agent='y', position=1)):\n"
        "        try:\n"
        "            run.emit(event)\n"
        "        except (TypeError, ValueError) as error:\n"
        "            print('refused', flush=True)\n"
        "    return 5\n",
    )
    run = shared.detach("-e", "python", "usurper.py:main")
    assert shared.outcome(run)["result"] == 5
    types = [event["type"] for event in shared.events(run)]
    assert types == ["RunStarted", "Output", "Output", "Output", "RunFinished"]


def test_a_stranger_on_a_runs_socket_disturbs_nothing(shared: House):
    run = shared.detach("--", "sh", "-c", "echo up; read line; echo got $line")
    shared.says(run, "up")
    with connected(shared, zmq.PAIR) as pair:
        pair.connect(shared.places.endpoint(run))
        pair.send(b"Egarbage")
        shared.sparrow("inject", run, "it").ok()
    assert shared.outcome(run)["status"] == "completed"
    assert "got it" in shared.printed(run)


def test_a_transcript_that_cannot_be_read_is_told(house: House):
    run = ended(house)
    path = house.places.transcript(run) / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-20] + b"\0\0\0")
    done = house.sparrow("logs", run)
    assert "Traceback" not in done.err
    assert "RunStarted" in house.sparrow("logs", "--json", run).out


def test_a_config_option_that_names_no_file(house: House):
    missing = Path("no-such-config.toml")
    done = house.sparrow("--config", missing, "config", "show")
    assert "Traceback" not in done.err


def test_a_supervisor_that_is_told_to_hang_up_goes_on(house: House):
    told = house.start()
    os.kill(told["pid"], signal.SIGHUP)
    house.sparrow("run", "true").ok()
    eventually(lambda: house.status()["pid"] == told["pid"])
