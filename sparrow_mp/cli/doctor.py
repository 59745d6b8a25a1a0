"""`sparrow doctor`: checks of the installation, each with its remedy."""

from __future__ import annotations

import os
import resource
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from sparrow_mp._version import __version__
from sparrow_mp.cli.checks import Finding, machine_checks
from sparrow_mp.cli.common import connect_running, example, json_option, places
from sparrow_mp.cli.output import coloured, out, out_json, paint
from sparrow_mp.cli.words import clean, one_line, plural, size
from sparrow_mp.errors import SparrowError
from sparrow_mp.paths import Places, check_address, supervisor_alive

_LEAST_FREE = 200 << 20
_LEAST_INODES = 1000
_LARGE_LOG = 100 << 20
_LEAST_FILES = 4096
_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "fail": ("✗", "bold red")}


@click.command(epilog=example(
    "sparrow doctor",
    "sparrow doctor --repair",
    "sparrow doctor --json | jq 'select(.state != \"ok\")'",
))  # fmt: skip
@click.option("--repair", is_flag=True, help="Mend transcripts and the index; what was damaged is kept beside them.")
@json_option
def command(repair: bool, as_json: bool) -> int:
    """Check the installation and all that is recorded. What is wrong is told with its remedy; exits 1 where anything is.

    Starts nothing. To repair there must be no supervisor running; its runs may go on.
    """
    code = 0
    colour = coloured(sys.stdout)
    for finding in findings(places(), repair=repair):
        code = code or int(finding.state == "fail")
        if as_json:
            out_json(
                {"check": finding.check, "state": finding.state, "message": finding.words, "remedy": finding.remedy}
            )
            continue
        mark, style = _MARKS[finding.state]
        out(paint([(f"{mark} ", style), (f"{finding.check:<16}", "bold"), (finding.words, "")], colour))
        if finding.remedy:
            out(paint([(f"{'':<18}→ {finding.remedy}", style)], colour))
    return code


def findings(where: Places, *, repair: bool = False) -> Iterator[Finding]:
    """All checks, one after another. One that fails unexpectedly is a finding as well."""
    told: dict[str, Any] = {}
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        lambda: _settings(where),
        lambda: _folders(where),
        lambda: _addresses(where),
        lambda: _supervisor(where, told),
        lambda: _sockets(where, told),
        lambda: _tcp(where, told),
        _engines,
        lambda: _disk(where),
        _files,
        *machine_checks(where),
        lambda: _notify(where),
        lambda: _jobs(where),
        lambda: _logs(where),
        lambda: _stale(where),
        lambda: _recorded(where, repair=repair),
    ]
    for check in checks:
        try:
            yield from check()
        except OSError as error:
            yield Finding("check", "fail", f"could not be done: {error}", "see whether you may read that place")


def _python() -> Iterator[Finding]:
    import zmq

    version = ".".join(str(part) for part in sys.version_info[:3])
    words = f"sparrow {__version__}, Python {version}, libzmq {zmq.zmq_version()}"
    yield Finding("python", "ok", words)  # an older Python does not get this far
    if not zmq.has("ipc"):
        yield Finding("python", "fail", "this libzmq has no ipc transport", "reinstall pyzmq from its wheel")


def _settings(where: Places) -> Iterator[Finding]:
    from sparrow_mp.config import load_config

    try:
        load_config(where.config)
    except SparrowError as error:
        yield Finding("settings", "fail", error.message, f"correct it: {where.config}")
    else:
        yield Finding("settings", "ok", str(where.config) if where.config.exists() else f"defaults (no {where.config})")


def _folders(where: Places) -> Iterator[Finding]:
    for name, folder in (("state", where.state), ("runtime", where.runtime)):
        yield _folder(name, folder)


def _folder(name: str, folder: Path) -> Finding:
    """The same rules as paths.secure_folder, without making anything."""
    check = f"{name} folder"
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return Finding(check, "ok", f"{folder} (will be made)")
    except OSError as error:
        return Finding(
            check, "fail", f"{folder}: {error.strerror}", f"choose another place: SPARROW_{name.upper()}_DIR"
        )
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        return Finding(
            check, "fail", f"{folder} is no folder of its own", f"move it away, or set SPARROW_{name.upper()}_DIR"
        )
    if found.st_uid != os.geteuid():
        return Finding(check, "fail", f"{folder} belongs to user {found.st_uid}", f"set SPARROW_{name.upper()}_DIR")
    if found.st_mode & 0o077:
        return Finding(check, "fail", f"{folder} is open to other users", f"chmod 700 {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(check, "fail", f"{folder} is not writable", f"chmod 700 {folder}")
    return Finding(check, "ok", str(folder))


def _addresses(where: Places) -> Iterator[Finding]:
    longest = Path(where.endpoint("0" * 36).removeprefix("ipc://"))
    for path, what in ((longest, "a run's socket"), (where.unix_socket, "the NDJSON Unix socket")):
        try:
            check_address(path, what)
        except SparrowError as error:
            yield Finding(
                "paths", "fail", error.message, "set SPARROW_RUNTIME_DIR or SPARROW_STATE_DIR to a shorter one"
            )


def _supervisor(where: Places, told: dict[str, Any]) -> Iterator[Finding]:
    if not supervisor_alive(where):
        yield Finding("supervisor", "ok", "none is running; the next command that needs one starts it")
        return
    try:
        with connect_running() as client:
            told.update(client.status())
    except SparrowError as error:
        yield Finding(
            "supervisor", "fail", f"one holds {where.lock} but does not answer: {error.message}",
            f"see {where.log}; to be rid of it: kill the process that `fuser {where.lock}` names",
        )  # fmt: skip
        return
    words = f"version {told.get('version')}, pid {told.get('pid')}"
    if told.get("version") != __version__:
        yield Finding(
            "supervisor", "note", f"{words}, while this is {__version__}",
            "restart it, the runs go on: sparrow shutdown --keep-runs && sparrow ps",
        )  # fmt: skip
    else:
        yield Finding("supervisor", "ok", words)
    for problem in told.get("problems") or ():
        yield Finding("supervisor", "fail", str(problem), f"see its log: {where.log}, or journalctl --user -u sparrow")


def _sockets(where: Places, told: dict[str, Any]) -> Iterator[Finding]:
    if not told:
        return
    paths = [str(told.get(key) or "").removeprefix("ipc://") for key in ("control", "events", "unix")]
    for path in filter(None, paths):
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            yield Finding(
                "sockets", "fail", f"{path} is gone", "restart the supervisor: sparrow shutdown --keep-runs; sparrow ps"
            )
            continue
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            yield Finding(
                "sockets",
                "fail",
                f"{path} is not yours alone",
                "restart the supervisor: sparrow shutdown --keep-runs; sparrow ps",
            )
        else:
            yield Finding("sockets", "ok", path)


def _tcp(where: Places, told: dict[str, Any]) -> Iterator[Finding]:
    import socket

    from sparrow_mp.config import load_config, split_address

    try:
        configured = load_config(where.config).ndjson.tcp
        address = told.get("tcp") if told else configured
        if not configured:
            yield Finding("tcp", "ok", "switched off")
            return
        if not address:
            yield Finding(
                "tcp",
                "fail",
                f"the supervisor could not listen on {configured}",
                "free the port or choose another: SPARROW_TCP=127.0.0.1:0",
            )
            return
        host, port = split_address(address, where.config)
    except SparrowError:
        return  # told by the check of the settings
    if port == 0:
        yield Finding("tcp", "ok", f"{configured}: a free port will be picked")
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        answered = probe.connect_ex((host, port)) == 0
    if told:
        state, words = ("ok", f"{address} answers") if answered else ("fail", f"nothing answers on {address}")
        yield Finding("tcp", state, words, "" if answered else f"see {where.log}")
    elif answered:
        yield Finding(
            "tcp",
            "note",
            f"another program listens on {address}",
            "stop it, or choose another port: [ndjson] tcp, SPARROW_TCP",
        )
    else:
        yield Finding("tcp", "ok", f"{address} is free")


def _engines() -> Iterator[Finding]:
    from sparrow_mp.run.engines import engine_names

    names = sorted(engine_names())
    yield Finding("engines", "ok", ", ".join(names))


def _disk(where: Places) -> Iterator[Finding]:
    folder = next((place for place in (where.state, *where.state.parents) if place.exists()), Path("/"))
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < _LEAST_FREE:
        yield Finding(
            "disk", "fail", f"only {size(free)} free for {where.state}", "make room: sparrow prune --older-than 7d"
        )
    elif found.f_files and found.f_favail < _LEAST_INODES:
        yield Finding(
            "disk",
            "fail",
            f"only {found.f_favail} more files fit beside {where.state}",
            "make room: sparrow prune --older-than 7d",
        )
    else:
        yield Finding("disk", "ok", f"{size(free)} free for {where.state}")


def _files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 1 << 30
    if most < _LEAST_FILES:
        yield Finding(
            "open files",
            "note",
            f"at most {most}, enough for about {most // 8} runs at once",
            "raise the limit: ulimit -Hn 16384",
        )
    else:
        yield Finding("open files", "ok", f"up to {most:,} (now {soft:,})")


def _notify(where: Places) -> Iterator[Finding]:
    """The command of [notify], as far as it can be judged without calling it."""
    import subprocess

    from sparrow_mp.config import load_config

    try:
        command = load_config(where.config).notify.command
    except SparrowError:
        return  # told by the check of the settings
    if not command:
        return
    checked = subprocess.run(
        ["/bin/sh", "-n", "-c", command], check=False, stdin=subprocess.DEVNULL, capture_output=True
    )
    if checked.returncode:
        fault = clean(checked.stderr.decode("utf-8", "replace").strip(), keep="")
        yield Finding(
            "notify",
            "fail",
            f"the shell does not understand its command: {fault}",
            "correct `notify.command`; `sparrow config show` tells where it is set",
        )
    else:
        yield Finding("notify", "ok", one_line(command, 60))


def _jobs(where: Places) -> Iterator[Finding]:
    """jobs.toml, as the supervisor reads it."""
    from sparrow_mp.jobs_file import load_jobs

    loaded = load_jobs(where)
    if loaded.fault:
        yield Finding("jobs", "fail", loaded.fault, "mend that line; until then the jobs as they were stay in force")
    elif loaded.jobs:
        yield Finding("jobs", "ok", f"{len(loaded.jobs)} in {where.jobs}")


def _logs(where: Places) -> Iterator[Finding]:
    for path in (where.log, where.zygote_log):
        try:
            length = path.stat().st_size
        except FileNotFoundError:
            continue
        if length > _LARGE_LOG:
            yield Finding("logs", "note", f"{path} has grown to {size(length)}", f"empty it: truncate -s 0 {path}")


def _recorded(where: Places, *, repair: bool) -> Iterator[Finding]:
    """Transcripts and index. The daemon's code looks at them, and as a process: nothing here imports it."""
    import subprocess

    import msgspec

    argv = [sys.executable, "-P", "-m", "sparrow_supervisor.repair", *(["--repair"] if repair else [])]
    env = {**os.environ, "SPARROW_STATE_DIR": str(where.state), "SPARROW_RUNTIME_DIR": str(where.runtime)}
    with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = msgspec.json.decode(line, type=dict[str, str])
            yield Finding(found["check"], found["state"], found["message"], found["remedy"])
    if process.returncode not in (0, 1):
        yield Finding("records", "fail", "could not be looked at; what is above says why", f"see {where.transcripts}")


def _stale(where: Places) -> Iterator[Finding]:
    if supervisor_alive(where):
        return
    if where.address_file.exists():
        yield Finding(
            "leftovers",
            "note",
            "the last supervisor did not end by itself",
            f"see {where.log}; `sparrow ps` starts a new one, which clears up",
        )
    try:
        left = len(os.listdir(where.runs))
    except FileNotFoundError:
        left = 0
    if left:
        yield Finding(
            "leftovers",
            "note",
            f"{plural(left, 'run')} had not ended when the last supervisor did",
            "`sparrow ps` starts a new one, which takes them over",
        )
