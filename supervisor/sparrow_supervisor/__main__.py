"""Puts the supervisor together: settings, folders, the lock, the log, the reactor."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import resource
import sqlite3
import sys
import time
from pathlib import Path

import zmq
from setproctitle import setproctitle

from sparrow_mp import __version__, wire
from sparrow_mp.config import load_config
from sparrow_mp.errors import SparrowError, StateError
from sparrow_mp.paths import Places, check_address, find_places, secure_folder
from sparrow_supervisor import submit
from sparrow_supervisor.reactor import Reactor

_log = logging.getLogger("sparrow_supervisor")

_LOCK_PATIENCE_S = 1.0
_DEPTH = 500
"""How deep Python may call, and msgspec decode: half of what is usual. So what is deep enough to be refused by a reader,
which may be called from anywhere in somebody's program, is refused by us, and never recorded.
"""


def main() -> int:
    """Be the supervisor, in the foreground; the exit code."""
    asked = _arguments()
    usual = submit.Usual(umask=os.umask(0o077), open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    try:
        places = find_places(os.environ, asked.config)
        config = load_config(places.config, os.environ)
        logging.basicConfig(
            level=config.supervisor.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
        )
        for folder in (places.state, places.runtime, places.endpoints, places.transcripts, places.runs):
            secure_folder(folder)
        # The longest of the addresses below the runtime folder, before anything is started that would have to be ended.
        check_address(Path(places.endpoint("0" * 32).removeprefix("ipc://")), "a run's socket")
        lock = _lock(places)
        _raise_limits()
        sys.setrecursionlimit(_DEPTH)
        setproctitle("sparrow: supervisor")
        _log.info("sparrow %s, process %d, state in %s", __version__, os.getpid(), places.state)
        Reactor(places, config, usual, lambda reactor: _announce(reactor, asked)).run()
        places.address_file.unlink(missing_ok=True)
        os.close(lock)
    except SparrowError as error:
        return _fail(asked, error.message, error.exit_code)
    except (OSError, sqlite3.Error, zmq.ZMQError) as error:
        return _fail(asked, f"the supervisor cannot start: {error}", 1)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sparrow supervisor", description="the supervisor, in the foreground")
    parser.add_argument("--config", type=Path, help="the configuration file")
    parser.add_argument("--ready-fd", type=int, help="a descriptor that is told, in a line of JSON, how the start went")
    return parser.parse_args()


def _lock(places: Places) -> int:
    """Hold the state folder and the runtime folder for as long as this process lives. Raises StateError."""
    held = -1
    for folder in (places.state, places.runtime):
        path = folder / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "another process"
                    raise StateError(
                        f"a supervisor (process {holder}) holds {folder}; use that one, or another SPARROW_STATE_DIR"
                    ) from None
                time.sleep(0.02)  # a client may be looking whether the lock is held; nothing turns yet
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        if held < 0:
            held = fd
    return held


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
        "zygote_pid": reactor.zygote.pid,
        "adapters_pid": reactor.adapters.pid,
    }
    path = reactor.places.address_file
    new = path.with_suffix(".new")
    new.write_bytes(wire.encode(body) + b"\n")
    new.replace(path)
    _log.info("ready: control %s, TCP %s, socket %s", body["control"], body["tcp"], body["unix"])
    _tell(asked, {"ok": True})


def _fail(asked: argparse.Namespace, message: str, code: int) -> int:
    _tell(asked, {"ok": False, "message": message, "exit_code": code})
    sys.stderr.write(f"sparrow: {message}\n")
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
