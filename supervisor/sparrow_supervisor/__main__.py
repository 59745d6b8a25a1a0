"""Puts the supervisor together: settings, folders, the lock, the log, the reactor."""

from __future__ import annotations

import argparse
import errno
import faulthandler
import fcntl
import logging
import os
import resource
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path

import zmq
from setproctitle import setproctitle

from sparrow_mp import __version__, wire
from sparrow_mp.config import load_config
from sparrow_mp.errors import SparrowError, StateError
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.paths import Places, check_address, check_files, find_places, secure_folder
from sparrow_mp.regular import open_regular, write_regular
from sparrow_supervisor import submit
from sparrow_supervisor.journal import JournalHandler, is_journal
from sparrow_supervisor.notify import Notify
from sparrow_supervisor.reactor import Reactor
from sparrow_supervisor.systemd import Unit

_log = logging.getLogger("sparrow_supervisor")

_LOCK_PATIENCE_S = 1.0
_ANNOUNCE_AGAIN_S = 0.5
_DEPTH = 500
"""How deep Python may call, and msgspec decode: half of what is usual. So what is deep enough to be refused by a reader,
which may be called from anywhere in somebody's program, is refused by us, and never recorded.
"""


_SWITCH_S = 0.0005
"""How long a thread waits for the interpreter while another computes, a tenth of what is usual. The threads beside the loop
do little but read small files, and wait so long after each of them; and whenever the loop has written something, it waits.
"""


def main() -> int:
    """Be the supervisor, in the foreground; the exit code."""
    asked = _arguments()
    handlers: list[logging.Handler] = [JournalHandler()] if is_journal(os.environ) else []
    unit = Unit(Notify.take(os.environ)) if asked.unit else None
    usual = submit.Usual(umask=os.umask(0o077), open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    lock = -1
    try:
        places = find_places(os.environ, asked.config)
        config = load_config(places.config, os.environ)
        logging.basicConfig(
            level=config.supervisor.log_level.upper(),
            format="%(message)s" if handlers else "%(asctime)s %(levelname)s %(message)s",
            handlers=handlers or [logging.StreamHandler(sys.stderr)],
        )
        if unit is not None:
            faulthandler.enable()  # what hangs is ended by SIGABRT: where it hung is then in the log
        logging.raiseExceptions = False  # a log on a full disk misses lines; a traceback about each helps nobody
        for folder in (places.state, places.runtime, places.endpoints, places.transcripts, places.runs):
            secure_folder(folder)
        # The longest of the addresses below the runtime folder, before anything is started that would have to be ended.
        check_address(Path(places.endpoint("0" * 32).removeprefix("ipc://")), "a run's socket")
        if ARMED:
            reach("supervisor.locking")
        lock = _lock(places)
        if asked.revived and not places.address_file.exists():
            _log.info("nothing to start again: another supervisor has come meanwhile, and was told to end")
            return 0
        check_files(places.index, places.zygote_log)
        _raise_limits()
        sys.setrecursionlimit(_DEPTH)
        sys.setswitchinterval(_SWITCH_S)
        setproctitle("sparrow: supervisor")
        _log.info("sparrow %s, process %d, state in %s", __version__, os.getpid(), places.state)
        Reactor(places, config, usual, lambda reactor: _announce(reactor, asked), unit).run()
        places.address_file.unlink(missing_ok=True)
        os.close(lock)
    except SparrowError as error:
        return _fail(asked, unit, lock, error.message, error.exit_code)
    except (OSError, sqlite3.Error, zmq.ZMQError) as error:
        full = "full" in str(error) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))
        few = isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
        remedy = "; make room on the disk of its state folder" if full else ""
        remedy = "; raise the limit on open files (`ulimit -n 16384`)" if few else remedy
        return _fail(asked, unit, lock, f"the supervisor cannot start: {error}{remedy}", 1)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sparrow supervisor", description="the supervisor, in the foreground")
    parser.add_argument("--config", type=Path, help="the configuration file")
    parser.add_argument("--guarded", action="store_true", help="have it started again when it crashes")
    parser.add_argument("--revived", action="store_true", help="it is started again: only where the last one crashed")
    parser.add_argument("--unit", action="store_true", help="systemd has started it, as sparrow.service")
    parser.add_argument("--ready-fd", type=int, help="a descriptor that is told, in a line of JSON, how the start went")
    return parser.parse_args()


def _lock(places: Places) -> int:
    """Hold the state folder and the runtime folder for as long as this process lives. Raises StateError."""
    held = _hold(places.state)
    try:
        _hold(places.runtime)
    except BaseException:  # whatever it is goes on up; who hears of it looks whether somebody holds the state folder
        os.close(held)
        raise
    return held


def _hold(folder: Path) -> int:
    """A descriptor of the folder's lock, which is ours. Raises StateError, OSError."""
    path = folder / "lock"
    check_files(path)
    fd = open_regular(path, os.O_RDWR | os.O_CREAT)
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "another process"
                os.close(fd)
                raise StateError(
                    f"a supervisor (process {holder}) holds {folder}; use that one, or another SPARROW_STATE_DIR"
                ) from None
            time.sleep(0.02)  # a client may be looking whether the lock is held; nothing turns yet
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _raise_limits() -> None:
    """A run costs a few descriptors, and there can be a thousand."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _announce(reactor: Reactor, asked: argparse.Namespace) -> None:
    """Write down where clients find everything, and say that the start went well."""
    addresses = reactor.adapters.addresses
    body = {
        "version": __version__,
        "pid": os.getpid(),
        "started": reactor.started_at,
        "tcp": addresses.tcp if addresses else None,
        "unix": addresses.unix if addresses else None,
        "control": reactor.places.control,
        "events": reactor.places.events,
        "runtime": str(reactor.places.runtime),
        "zygote_pid": reactor.zygotes.young.pid,
        "adapters_pid": reactor.adapters.pid,
    }
    guarded = asked.guarded and reactor.config.supervisor.restart
    reactor.zygotes.guard(_wanted(reactor, asked) if guarded else None)
    path = reactor.places.address_file
    try:
        write_regular(path, wire.encode(body) + b"\n")
    except OSError as error:
        _log.error("the addresses cannot be written down (%s); trying again", error.strerror)
        reactor.loop.later(_ANNOUNCE_AGAIN_S, partial(_announce, reactor, asked))
        return
    _log.info("ready: control %s, TCP %s, socket %s", body["control"], body["tcp"], body["unix"])
    _tell(asked, {"ok": True})
    if reactor.unit is not None:
        reactor.unit.ready(reactor.loop, reactor.summary)


def _wanted(reactor: Reactor, asked: argparse.Namespace) -> dict[str, object]:
    """How to start another like this one."""
    config = ["--config", str(asked.config)] if asked.config else []
    return {
        "argv": [sys.executable, "-P", "-m", "sparrow_supervisor", "--guarded", "--revived", *config],
        "log": str(reactor.places.log),
        "umask": reactor.usual.umask,
        "open_files": reactor.usual.open_files,
    }


def _fail(asked: argparse.Namespace, unit: Unit | None, lock: int, message: str, code: int) -> int:
    if lock >= 0:
        os.close(lock)  # first, as who hears that this one has failed looks whether another holds it
    _tell(asked, {"ok": False, "message": message, "exit_code": code})
    if unit is not None:
        unit.failed(message)
    sys.stderr.write(f"{'<3>' if unit else ''}sparrow: {message}\n")
    return code


def _tell(asked: argparse.Namespace, body: dict[str, object]) -> None:
    """One line to whoever started us, once."""
    if asked.ready_fd is not None:
        fd, asked.ready_fd = asked.ready_fd, None
        try:
            os.write(fd, wire.encode(body) + b"\n")
        except OSError:
            pass  # it did not wait
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
