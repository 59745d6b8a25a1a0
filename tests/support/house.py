"""A house: everything that one test needs to use the installed `sparrow`, apart from everybody else's, and nothing after it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from sparrow_mp import Client, NoSupervisor, SparrowError
from sparrow_mp.paths import Places, find_places, supervisor_alive
from tests.support import processes
from tests.support.waiting import eventually

BIN = Path(sys.executable).parent
"""Where the interpreter that runs the tests has its programs; `sparrow` is one of them."""

COMMAND_TIMEOUT_S = 40.0
_MARKER = "SPARROW_TEST_HOUSE"
_KEPT = ("LANG", "LC_ALL", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "PIP_NO_INDEX", "SSL_CERT_FILE")
_GONE_S = 20.0


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    args: Sequence[str]
    code: int
    stdout: bytes
    stderr: bytes

    def __repr__(self) -> str:
        args = " ".join(arg if len(arg) < 200 else f"{arg[:80]}…" for arg in self.args)
        return f"<{args} → {self.code}; out {self.stdout[-2000:]!r}; err {self.stderr[-2000:]!r}>"

    @property
    def out(self) -> str:
        """What it wrote to its standard output, as text."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def err(self) -> str:
        """What it wrote to its standard error, as text."""
        return self.stderr.decode("utf-8", "replace")

    def rows(self) -> list[dict[str, Any]]:
        """Its output as NDJSON."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def ok(self) -> Done:
        """Itself, where it exited 0."""
        assert self.code == 0, self
        return self

    def refused(self, code: int, *words: str) -> Done:
        """Itself, where it exited with this code and said these words in one sentence, with no traceback."""
        assert self.code == code, self
        assert "Traceback" not in self.err, self
        for word in words:
            assert word in self.err, (word, self)
        return self


class Going:
    """A command that runs: its output so far, and its end. It is killed at the end of ``with``."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str], cwd: Path, stdin: int | IO[bytes] | None) -> None:
        self.args = args
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  closed by __exit__
        self.process = subprocess.Popen(
            args,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )

    def __enter__(self) -> Going:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self._out.close()
        self._err.close()

    @property
    def out(self) -> str:
        """What it has written to its standard output."""
        return os.pread(self._out.fileno(), 1 << 26, 0).decode("utf-8", "replace")

    @property
    def err(self) -> str:
        """What it has written to its standard error."""
        return os.pread(self._err.fileno(), 1 << 26, 0).decode("utf-8", "replace")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self, timeout: float = COMMAND_TIMEOUT_S) -> Done:
        """Wait until it has ended."""
        code = self.process.wait(timeout)
        return Done(self.args, code, self.out.encode(), self.err.encode())


class House:
    """Folders, an environment and a port of its own, and the `sparrow` of the interpreter that runs the tests.

    ``close`` ends everything and fails where anything was left behind: a process, a socket, a run's folder, a descriptor.
    """

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        # Short, because the address of a Unix socket has at most 107 bytes.
        self.top = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))
        self.home = self._folder("h")
        self.work = self._folder("w")
        self.env = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "TMPDIR": str(self._folder("t")),
            "SPARROW_STATE_DIR": str(self.top / "s"),
            "SPARROW_RUNTIME_DIR": str(self.top / "r"),
            "SPARROW_CONFIG": str(self.top / "config.toml"),
            "SPARROW_TCP": "127.0.0.1:0",
            "SPARROW_SUPERVISOR_RESTART": "false",  # most tests that kill one look at what becomes of runs without any
            "PYTHONDONTWRITEBYTECODE": "1",
            _MARKER: self.id,
        }
        self.known: set[int] = set()
        """Processes that a test has seen and that must be gone at the end, whatever they did to hide."""
        self.may_complain = False
        """Whether the logs may hold a traceback."""

    def _folder(self, name: str) -> Path:
        path = self.top / name
        path.mkdir(mode=0o700)
        return path

    @property
    def places(self) -> Places:
        """Where everything of this house is."""
        return find_places(self.env)

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.places.state

    @property
    def runtime(self) -> Path:
        """The runtime folder."""
        return self.places.runtime

    def configure(self, text: str) -> None:
        """Write the configuration file."""
        (self.top / "config.toml").write_text(text)

    def write(self, name: str, text: str) -> Path:
        """Write a file into the working folder."""
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    # ── commands ──

    def sparrow(
        self,
        *args: str | Path,
        stdin: bytes | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = COMMAND_TIMEOUT_S,
    ) -> Done:
        """Run `sparrow ARGS` to its end. Without ``stdin`` it has an empty one."""
        command = [str(BIN / "sparrow"), *map(str, args)]
        with tempfile.TemporaryFile() as given:
            given.write(stdin.encode() if isinstance(stdin, str) else stdin or b"")
            given.seek(0)
            done = subprocess.run(
                command,
                env={**self.env, **(env or {})},
                cwd=cwd or self.work,
                stdin=subprocess.DEVNULL if stdin is None else given,
                capture_output=True,
                timeout=timeout,
                start_new_session=True,
            )
        return Done(command, done.returncode, done.stdout, done.stderr)

    def begin(
        self,
        *args: str | Path,
        stdin: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Going:
        """Begin `sparrow ARGS`."""
        return Going([str(BIN / "sparrow"), *map(str, args)], {**self.env, **(env or {})}, cwd or self.work, stdin)

    def detach(self, *args: str | Path, **more: Any) -> str:
        """`sparrow run -d ARGS`; the run's id."""
        return self.sparrow("run", "-d", *args, **more).ok().out.strip()

    def python(self, code: str, *args: str, env: Mapping[str, str] | None = None) -> Done:
        """Run a script with the interpreter of the tests, in this house."""
        command = [sys.executable, "-c", code, *args]
        done = subprocess.run(
            command,
            env={**self.env, **(env or {})},
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        return Done(command, done.returncode, done.stdout, done.stderr)

    # ── looking ──

    def client(self) -> Client:
        """The library, in this process: a look that is no test of the command line need not wait for a command to start."""
        return Client(places=self.places, start=False, timeout=COMMAND_TIMEOUT_S)

    def status(self) -> dict[str, Any]:
        """What `sparrow status --json` prints; an AssertionError where there is no supervisor, as for a command that fails."""
        try:
            with self.client() as sparrow:
                return sparrow.status()
        except SparrowError as error:
            raise AssertionError(str(error)) from error

    def ps(self, *args: str) -> list[dict[str, Any]]:
        """`sparrow ps -a --json`."""
        return self.sparrow("ps", "-a", "--json", *args).ok().rows()

    def record(self, run: str) -> dict[str, Any]:
        """The run's row of `ps`, which starts a supervisor where there is none."""
        try:
            with self.client() as sparrow:
                rows = [msgspec.to_builtins(row) for row in sparrow.list(all=True)]
        except NoSupervisor:
            rows = self.ps()
        (row,) = [row for row in rows if row["run"] == run]
        return row

    def events(self, run: str) -> list[dict[str, Any]]:
        """What is recorded of a run by now, from the files; checked to be numbered 1, 2, 3 …"""
        found: list[dict[str, Any]] = []
        folder = self.places.transcript(run)
        names = sorted(folder.glob("events.*.jsonl"), key=lambda path: int(path.name.split(".")[1]))
        for path in [*names, folder / "events.jsonl"]:
            data = path.read_bytes() if path.exists() else b""
            found += [msgspec.json.decode(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1)), "a hole or a repeat in seq"
        assert all(event["run"] == run for event in found), "an event of another run"
        stamps = [event["ts"] for event in found]
        assert stamps == sorted(stamps), "the time went back"
        return found

    def outcome(self, run: str, timeout: float = 30.0) -> dict[str, Any]:
        """How the run ended, once it has; its transcript is checked to end as the contract says."""
        try:
            eventually((self.places.transcript(run) / "meta.json").exists, timeout, f"the end of run {run}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.account(run)}") from None
        events = self.events(run)
        assert [event["type"] for event in events].count("RunFinished") == 1
        assert events[-1]["type"] == "RunFinished"
        return events[-1]["outcome"]

    def account(self, run: str) -> str:
        """What there is to be known of a run that does not end: its processes, its folder, and what the logs say of it."""
        folder = self.places.run_folder(run)
        lines = [f"{pid}: {processes.title(pid)}" for pid in self.processes()]
        lines.append(f"{folder}: {sorted(path.name for path in folder.glob('*'))}")
        for name in ("supervisor.log", "zygote.log"):
            path = self.places.state / name
            log = path.read_text(errors="replace").splitlines() if path.exists() else []
            lines += [f"{name}: {line}" for line in log if run in line or run[:8] in line][-20:]
            lines += [f"{name}: {line}" for line in log[-15:]]
        return "\n".join(lines)

    def printed(self, run: str, stream: str = "stdout") -> str:
        """What the run has written, as its transcript has it."""
        texts = [
            event["text"] + ("" if event.get("partial") else "\n")
            for event in self.events(run)
            if event["type"] == "Output" and event["stream"] == stream
        ]
        return "".join(texts)

    def says(self, run: str, text: str, timeout: float = 15.0) -> None:
        """Wait until the run has printed the text."""
        eventually(lambda: text in self.printed(run), timeout, f"{text!r} from run {run}")

    def pid_of(self, run: str) -> int:
        """The pid of a run's command or engine, once it runs."""
        return eventually(lambda: int(self.record(run).get("pid") or 0), what=f"the pid of run {run}")

    def monitor_of(self, run: str) -> int:
        """The pid of a run's monitor."""
        monitor = processes.parent(self.pid_of(run))
        assert "monitor of run" in processes.title(monitor)
        return monitor

    def processes(self) -> list[int]:
        """Every process of this house that is alive, the tests' own left out."""
        return [pid for pid in processes.pids() if pid != os.getpid() and self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        return (pid in self.known and processes.alive(pid)) or processes.belongs(pid, f"{_MARKER}={self.id}", self.top)

    # ── the supervisor ──

    @property
    def supervised(self) -> bool:
        """Whether a supervisor holds the state folder."""
        return supervisor_alive(self.places)

    def start(self) -> dict[str, Any]:
        """Have a supervisor; its status, with the addresses of its adapters where they come up at all."""
        if self.supervised:
            try:
                return self._told()
            except AssertionError:
                pass  # it is dying of a signal, and holds the folder to the last
        self.sparrow("ps").ok()
        return self._told()

    def _told(self) -> dict[str, Any]:
        told = self.status()
        if told["tcp"] is None and told["unix"] is None:
            with contextlib.suppress(AssertionError):  # there may be none to come, which the test will tell
                eventually(lambda: any(map(self.status().get, ("tcp", "unix"))), what="the adapters")
            told = self.status()
        return told

    def kill_supervisor(self) -> int:
        """SIGKILL it, and wait until it is gone; its pid."""
        pid = int(json.loads(self.places.address_file.read_bytes())["pid"])
        assert processes.title(pid).startswith("sparrow: supervisor")
        processes.kill(pid)

        def gone() -> bool:
            # Who follows a run, or injects, may have another one there before we look again: then the lock names that.
            free = not self.supervised or (self.state / "lock").read_text().strip() != str(pid)
            return not processes.alive(pid) and free

        eventually(gone, what="the supervisor's death")
        return pid

    @contextmanager
    def supervisor(self, *args: str, env: Mapping[str, str] | None = None) -> Iterator[Going]:
        """`sparrow supervisor` in the foreground, ready."""
        with self.begin("supervisor", *args, env=env) as going:
            eventually(lambda: "ready:" in going.err or going.process.poll() is not None, what="a supervisor")
            assert going.process.poll() is None, going.err
            yield going
            if going.process.poll() is None:
                self.sparrow("shutdown", "--now").ok()
                going.wait()

    # ── the end ──

    def close(self) -> None:
        """End everything, remove the folders, and fail where anything was left behind."""
        faults: list[str] = []
        try:
            self._end(faults)
        finally:
            for pid in self.processes():
                faults.append(f"process {pid} is still there: {processes.title(pid)}")
                processes.kill(pid, signal.SIGKILL)
            faults += self._left_files()
            faults += self._complaints()
            shutil.rmtree(self.top, ignore_errors=True)
        assert not faults, "left behind: " + "\n".join(faults)

    def _end(self, faults: list[str]) -> None:
        if not self.supervised and self.processes():
            self.sparrow("ps")  # what a test has killed the supervisor of is adopted, and so can be ended
        if self.supervised:
            told = self.status()
            self._kill_runs(faults)
            faults += self._leaks(told)
            try:
                with self.client() as sparrow:
                    sparrow.shutdown(now=True)
            except SparrowError as error:
                faults.append(f"shutdown failed: {error}")
        try:
            eventually(lambda: not self.processes(), _GONE_S)
        except AssertionError:
            pass  # they are told, one by one

    def _kill_runs(self, faults: list[str]) -> None:
        with self.client() as sparrow:
            live = [row.run for row in sparrow.list()]
        if live:
            done = self.sparrow("kill", "--now", *live)
            if done.code not in (0, 1):  # 1: one had ended by itself meanwhile
                faults.append(f"kill failed: {done}")

    def _leaks(self, told: dict[str, Any]) -> list[str]:
        """What the supervisor and the zygote hold of runs that have ended."""

        def leaks() -> list[str]:
            places = (str(self.places.runs), str(self.places.transcripts))
            parents = (told["pid"], told["zygote_pid"])
            return [
                f"process {pid} still has {link} open"
                for pid in parents
                for link in processes.descriptors(pid)
                if link.startswith(places)
            ] + [
                f"zombie {pid}"
                for pid in processes.pids()
                if processes.parent(pid) in parents and processes.state(pid) == "Z"
            ]

        try:
            eventually(lambda: not leaks(), 15.0)
        except AssertionError:
            return leaks()
        return []

    def _left_files(self) -> list[str]:
        left = []
        for folder, names, files in os.walk(self.top, onerror=None):
            for name in [*names, *files]:
                path = Path(folder, name)
                try:
                    if stat.S_ISSOCK(path.lstat().st_mode) and path.is_relative_to(self.runtime):
                        left.append(f"socket {path}")
                except OSError:
                    continue
        if self.places.unix_socket.exists():
            left.append(f"socket {self.places.unix_socket}")
        if self.places.runs.is_dir():
            left += [f"folder {path}" for path in self.places.runs.iterdir()]
        if self.places.address_file.exists():
            left.append(f"file {self.places.address_file}")
        return left

    def _complaints(self) -> list[str]:
        """Tracebacks in the logs: each is a bug, whatever came of it."""
        found = []
        for path in self.state.glob("*.log"):
            text = path.read_text(errors="replace")
            if "Traceback" in text and not self.may_complain:
                found.append(f"{path.name}: {text[text.index('Traceback') - 300 if len(text) > 300 else 0 :][:3000]}")
        return found
