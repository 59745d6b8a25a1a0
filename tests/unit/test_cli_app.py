"""Whole command lines without a supervisor: what is understood, what is imported, how faults are told."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sparrow_mp.cli.app import VERBS, run_cli
from sparrow_mp.cli.run import build_request

RUN = "1b0c8a2e-0000-4000-8000-000000000001"
OTHER = "1b0d8a2e-0000-4000-8000-000000000002"


@pytest.fixture
def state(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    for name in ("SPARROW_RUNTIME_DIR", "SPARROW_CONFIG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPARROW_STATE_DIR", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SPARROW_TCP", "127.0.0.1:0")
    monkeypatch.setenv("SPARROW_NO_START", "1")
    return folder


def transcript(state: Path, run: str, *events: dict, name: str | None = None, ended: bool = True) -> Path:
    folder = state / "transcripts" / run
    folder.mkdir(parents=True)
    (folder / "inputs.json").write_text(json.dumps({"run": run, "task": "make test", "name": name}))
    lines = [
        json.dumps({"type": event.pop("type"), "run": run, "seq": n, "ts": f"2026-11-22T12:00:00.{n:06}Z", **event})
        + "\n"
        for n, event in enumerate(events, 1)
    ]
    (folder / "events.jsonl").write_text("".join(lines))
    if ended:
        (folder / "meta.json").write_text("{}")
    return folder


def sparrow(capsys, *args):
    code = run_cli(args)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# ── What is understood ───────────────────────────────────────────────────────────────────────────────────────────────


def request(*args):
    """What `sparrow run` would submit."""
    asked = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparrow_mp.cli.run.build_request", lambda *given: asked.update(build_request(*given)))
        patch.setattr("sparrow_mp.cli.run.submit_and_follow", lambda *given: 0)
        assert run_cli(["run", *args]) == 0
    return asked


def test_a_task_is_its_words(state):
    assert request("make", "test", "-e", "shell")["task"] == "make test"
    assert request("make", "test")["argv"] is None


def test_a_command_stands_behind_the_dashes(state):
    asked = request("--name", "x", "--", "python3", "-c", "print('--')", "--", "-d")
    assert asked["argv"] == ["python3", "-c", "print('--')", "--", "-d"]
    assert (asked["task"], asked["name"]) == ("", "x")
    assert request("-e", "command", "ls", "src")["argv"] == ["ls", "src"]


def test_options_of_run(state, monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    asked = request(
        "t", "--timeout", "5m", "--budget", "1.5", "--env", "A=1", "--env", "TOKEN", "--label", "a", "--label", "b"
    )
    assert (asked["timeout"], asked["budget"], asked["labels"]) == (300, 1.5, ["a", "b"])
    assert (asked["env"]["A"], asked["env"]["TOKEN"]) == ("1", "secret")
    assert asked["cwd"] == str(Path.cwd())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run"], "Say what to run"),
        (["run", "--"], "no command behind"),
        (["run", "a", "--", "b"], "not both"),
        (["run", "ls", "-la"], "behind `--`"),
        (["run", "--timeout", "soon", "x"], "no duration"),
        (["run", "--env", "SURELY_NOT_SET", "x"], "SURELY_NOT_SET is not set"),
        (["lgos", "x"], "did you mean `logs`?"),
        (["inject", "x"], "Say the MESSAGE"),
        (["events", "--since", "7"], "A seq counts within one run"),
        (["shutdown", "--now", "--keep-runs"], "say one of them"),
        (["prune"], "--older-than"),
    ],
)
def test_wrong_usage_is_one_sentence(state, capsys, args, words):
    code, out, err = sparrow(capsys, *args)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(state, capsys, verb):
    code, out, _ = sparrow(capsys, verb, "--help")
    assert code == 0
    assert "Example" in out
    assert f"sparrow {verb}" in out


def test_what_is_imported_only_when_it_is_used():
    script = "import sys; from sparrow_mp.cli.app import run_cli; run_cli(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"

    def modules(*args):
        return set(subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True).stderr.split())

    loaded = modules("--help")
    assert not {name for name in loaded if name.startswith("sparrow_mp.cli.")} & {
        f"sparrow_mp.cli.{verb}" for verb in VERBS
    }
    assert not loaded & {"zmq", "rich", "msgspec", "psutil"}
    assert "rich" not in modules("doctor")


# ── How faults are told ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "args", [["ps"], ["status"], ["kill", "x"], ["run", "x"], ["wait", "x"], ["inject", "x", "y"], ["events"]]
)
def test_without_a_supervisor(state, capsys, args):
    code, out, err = sparrow(capsys, *args)
    assert (code, out) == (69, "")
    assert "no supervisor is running" in err
    assert not list(state.iterdir())


def test_nothing_to_shut_down(state, capsys):
    assert sparrow(capsys, "shutdown")[0] == 0


def test_no_such_run(state, capsys):
    code, _, err = sparrow(capsys, "logs", "abc")
    assert code == 3
    assert "No active run with id abc" in err


def test_a_bug_is_no_traceback(state, capsys, monkeypatch):
    def fail():
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("sparrow_mp.cli.status.connect_running", fail)
    code, _, err = sparrow(capsys, "status")
    assert code == 1
    assert "please report it" in err
    assert "Traceback" not in err
    monkeypatch.setenv("SPARROW_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run_cli(["status"])


def test_a_closed_pipe_is_a_quiet_end(state):
    transcript(state, RUN, *({"type": "Output", "stream": "stdout", "text": "x" * 1000} for _ in range(1000)))
    command = f"{sys.executable} -m sparrow_mp.cli logs {RUN} | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1


# ── From the files ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_logs(state, capsys):
    transcript(
        state,
        RUN,
        {"type": "RunStarted", "task": "make test", "agent": ""},
        {"type": "Output", "stream": "stdout", "text": "hello"},
        {"type": "RunFinished", "outcome": {"status": "completed", "duration_ms": 12}},
        name="tests",
    )
    code, out, err = sparrow(capsys, "logs", "1b0c")
    assert (code, err) == (0, "")
    assert [line.split("  ", 1)[1] for line in out.splitlines()[1:]] == [
        "started make test",
        "hello",
        "completed · after 12 ms",
    ]
    assert sparrow(capsys, "logs", "tests", "--since", "2")[1].endswith("completed · after 12 ms\n")
    rows = [json.loads(line) for line in sparrow(capsys, "logs", "tests", "--json")[1].splitlines()]
    assert [row["seq"] for row in rows] == [1, 2, 3]
    assert sparrow(capsys, "logs", "tests", "--json", "--since", "1m")[1] == ""


def test_ambiguous_prefix(state, capsys):
    transcript(state, RUN)
    transcript(state, OTHER)
    assert sparrow(capsys, "logs", "1b0")[0] == 3


def test_replay_keeps_the_pace(state, capsys):
    folder = transcript(state, RUN, *({"type": "Output", "stream": "stdout", "text": f"{n}"} for n in range(3)))
    lines = (folder / "events.jsonl").read_text().splitlines()
    for n, line in enumerate(lines):
        lines[n] = line.replace(f"12:00:00.{n + 1:06}Z", f"12:00:{n}0.000000Z")
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    begin = time.monotonic()
    assert sparrow(capsys, "replay", RUN, "--speed", "100")[0] == 0
    assert 0.2 <= time.monotonic() - begin < 15
    begin = time.monotonic()
    sparrow(capsys, "replay", str(folder), "--speed", "0")
    assert time.monotonic() - begin < 15


def test_replay_of_another_programs_record(state, capsys, tmp_path):
    path = tmp_path / "old.jsonl"
    path.write_text(
        '{"type":"RunStarted","run":"r","task":"t","agent":"a"}\n\n{"type":"Message","run":"r","role":"user","text":"x"}\n'
    )
    code, out, _ = sparrow(capsys, "replay", str(path))
    assert (code, out) == (0, "  started t (a)\n  user: x\n")
    path.write_text("nonsense\n")
    code, _, err = sparrow(capsys, "replay", str(path))
    assert code == 1
    assert "line 1" in err


def test_rm_spares_what_has_not_ended(state, capsys):
    done = transcript(state, RUN)
    live = transcript(state, OTHER, ended=False)
    code, _, err = sparrow(capsys, "rm", RUN, OTHER)
    assert code == 1
    assert "has not ended" in err
    assert (done.exists(), live.exists()) == (False, True)


def test_prune(state, capsys):
    done = transcript(state, RUN)
    transcript(state, OTHER, ended=False)
    assert "would delete 1 transcript" in sparrow(capsys, "prune", "--older-than", "0", "--dry-run")[1]
    assert done.exists()
    assert "deleted 0 transcripts" in sparrow(capsys, "prune", "--older-than", "1h")[1]
    rows = sparrow(capsys, "prune", "--older-than", "0", "--json")[1].splitlines()
    assert [json.loads(row)["run"] for row in rows] == [RUN]
    assert [path.name for path in (state / "transcripts").iterdir()] == [OTHER]


def test_doctor_finds_what_is_wrong(state, capsys):
    code, out, _ = sparrow(capsys, "doctor")
    assert code == 0, out
    state.chmod(0o755)
    (state / "supervisor.json").write_text("{}")
    code, out, _ = sparrow(capsys, "doctor", "--json")
    found = {row["check"]: row for row in map(json.loads, out.splitlines()) if row["state"] != "ok"}
    assert code == 1
    assert found["state folder"]["remedy"] == f"chmod 700 {state}"
    assert "leftovers" in found


def test_config_says_where_a_value_comes_from(state, capsys, tmp_path, monkeypatch):
    file = tmp_path / "sparrow.toml"
    file.write_text("[run]\ngrace = 3.0\n")
    rows = {
        row["key"]: row
        for row in map(json.loads, sparrow(capsys, "--config", str(file), "config", "show", "--json")[1].splitlines())
    }
    assert (rows["run.grace"]["value"], rows["run.grace"]["source"]) == (3.0, str(file))
    assert rows["ndjson.tcp"]["source"] == "$SPARROW_TCP"
    assert rows["run.engine"]["source"] == "default"
    file.write_text("[run]\ngrce = 3.0\n")
    code, _, err = sparrow(capsys, "--config", str(file), "config", "check")
    assert code == 1
    assert f"{file}, line 2: unknown key `run.grce`; did you mean `grace`?" in err


def test_config_check_says_all_that_is_wrong_with_any_file(state, capsys, tmp_path):
    file = tmp_path / "new.toml"
    assert sparrow(capsys, "config", "check", str(file))[0] == 2
    file.write_text("[run]\nnice = 20\n[engines.shell]\ngrace = -1\n")
    code, _, err = sparrow(capsys, "config", "check", str(file))
    assert code == 1
    assert err.splitlines() == [
        f"sparrow: {file}, line 2: `run.nice` is 20; the most is 19",
        f"sparrow: {file}, line 4: `engines.shell.grace` is -1.0; the least is 0.0",
    ]
    file.write_text(sparrow(capsys, "config", "example")[1])
    assert sparrow(capsys, "config", "check", str(file))[0] == 0


def test_config_shows_what_is_not_the_default(state, capsys, tmp_path):
    file = tmp_path / "sparrow.toml"
    file.write_text('[run]\nmemory = "2G"\n[engines.python]\nnice = 3\n')
    code, out, _ = sparrow(capsys, "--config", str(file), "config", "show", "--changed")
    assert code == 0
    assert "".join(out.split()) == "".join(
        f"""
        SETTING VALUE FROM
        run.memory "2G" {file}
        ndjson.tcp "127.0.0.1:0" $SPARROW_TCP
        engines.python.nice 3 {file}
    """.split()
    )


# ── Completion ───────────────────────────────────────────────────────────────────────────────────────────────────────


def completions(capsys, monkeypatch, *words):
    with monkeypatch.context() as patch:
        patch.setenv("_SPARROW_COMPLETE", "bash_complete")
        patch.setenv("COMP_WORDS", " ".join(["sparrow", *words]))
        patch.setenv("COMP_CWORD", str(len(words)))
        _, out, _ = sparrow(capsys)
    return [line.partition(",")[2] for line in out.splitlines()]


def test_completion(state, capsys, monkeypatch):
    transcript(state, RUN, name="tests")
    transcript(state, OTHER, ended=False)
    (state / "runs" / OTHER).mkdir(parents=True)
    assert "inject" in completions(capsys, monkeypatch, "inj")
    assert completions(capsys, monkeypatch, "logs", "1") == [RUN[:8], OTHER[:8]]
    assert completions(capsys, monkeypatch, "logs", "te") == ["tests"]
    assert completions(capsys, monkeypatch, "kill", "1") == [OTHER[:8]]
    assert "python" in completions(capsys, monkeypatch, "run", "-e", "py")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(capsys, shell):
    code, out, _ = sparrow(capsys, "completion", shell)
    assert code == 0
    assert "_SPARROW_COMPLETE" in out
