"""Start a supervisor in the background: through the user's systemd where the unit is installed, else as a process.

The daemon is never imported here; it is run. It is started twice removed, so that it is nobody's child here and leaves no
zombie to a program that goes on for days.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from sparrow_mp import service
from sparrow_mp.connect import no_supervisor, start_forbidden
from sparrow_mp.errors import NoSupervisor, SparrowError, StateError
from sparrow_mp.paths import Places, check_files, find_places, secure_folder, supervisor_alive
from sparrow_mp.regular import open_regular

START_SECONDS = 30.0
"""How long a supervisor may take until it is ready."""

_DETACH = "import os, sys\nif not os.fork():\n    os.execv(sys.argv[1], sys.argv[1:])"
_TAIL_BYTES = 2000


class _Told(msgspec.Struct):
    """What a supervisor says when it is ready, or why it will not be."""

    ok: bool
    message: str = ""


class Launch:
    """A supervisor that is being started: wait until ``fd`` is readable, call read(), until that says True; then finish().

    Nothing here waits, so that both clients can use it.
    """

    def __init__(self, places: Places, on_start: Callable[[str], None] | None = None) -> None:
        """Raises NoSupervisor where starting one is forbidden or impossible."""
        if start_forbidden():
            raise no_supervisor()
        if not sys.executable:
            raise NoSupervisor("no supervisor is running, and this program does not know its Python to start one with")
        self._places = places
        self._heard = b""
        self._log_size = 0
        installed = _default_places(places) and service.unit_file(os.environ) is not None
        self._systemd = service.manager(os.environ) if installed else None
        if on_start is not None:
            through = "through systemd" if self._systemd else f"in the background; its log is {places.log}"
            alone = " (systemd, which has the unit, cannot be reached)" if installed and not self._systemd else ""
            on_start(f"no supervisor is running: starting one {through}{alone}")
        self.fd, writing = os.pipe()
        try:
            self._process = self._start_unit(self._systemd, writing) if self._systemd else self._start_process(writing)
        except OSError as error:
            os.close(self.fd)
            raise NoSupervisor(f"no supervisor is running, and starting one failed: {error}") from None
        except StateError as error:
            os.close(self.fd)
            raise NoSupervisor(f"the supervisor did not start: {error.message}") from None
        except BaseException:  # whatever it is goes on up, once nothing is left open
            os.close(self.fd)
            raise
        finally:
            os.close(writing)

    def read(self) -> bool:
        """Take in what has come; True where there is no more to wait for."""
        data = os.read(self.fd, 65536)
        self._heard += data
        return not data or (not self._systemd and b"\n" in self._heard)

    def finish(self) -> None:
        """Judge. Raises NoSupervisor, with the reason, where no supervisor is there now, of whosever making."""
        os.close(self.fd)
        self.fd = -1
        status = self._process.wait()  # systemctl, or what detached the supervisor: both have ended by now
        if self._systemd:
            if status and not supervisor_alive(self._places):
                said = self._heard.decode(errors="replace").strip()
                raise NoSupervisor(
                    f"systemd could not start the supervisor: {said or status}; see `systemctl --user status sparrow`"
                )
            return
        line = self._heard.partition(b"\n")[0]
        try:
            told = msgspec.json.decode(line, type=_Told)
        except msgspec.DecodeError:
            if supervisor_alive(self._places):
                return
            raise NoSupervisor(
                f"the supervisor died while it started; the end of {self._places.log}:\n{self._tail()}"
            ) from None
        # One that was refused because another had been faster is no fault: that other one will do.
        if not told.ok and not supervisor_alive(self._places):
            raise NoSupervisor(f"the supervisor did not start: {told.message}")

    def give_up(self) -> SparrowError:
        """It took too long: stop listening (it may still come)."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        return NoSupervisor(
            f"a supervisor was started but is not ready after {START_SECONDS:g} s; see {self._places.log}"
        )

    def _start_unit(self, runtime: Path, told: int) -> subprocess.Popen[bytes]:
        argv = ["systemctl", "--user", "--no-ask-password", "start", service.UNIT]
        env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
        return subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=told, stderr=told)

    def _start_process(self, told: int) -> subprocess.Popen[bytes]:
        secure_folder(self._places.state)
        check_files(self._places.log)
        log = open_regular(self._places.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            self._log_size = os.fstat(log).st_size
            daemon = [sys.executable, "-P", "-m", "sparrow_supervisor", "--guarded", "--ready-fd", str(told)]
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _DETACH, *daemon],
                cwd="/",
                env=_environment(self._places),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(told,),
            )
        finally:
            os.close(log)

    def _tail(self) -> str:
        """The last of what was logged since it was started."""
        with self._places.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_size, end - _TAIL_BYTES))
            return log.read().decode(errors="replace").strip() or "(nothing)"


def start_supervisor(places: Places, on_start: Callable[[str], None] | None = None) -> None:
    """Start one and wait until it, or another that was faster, is there.

    Raises NoSupervisor where none came within START_SECONDS, or it says why it cannot.
    """
    launch = Launch(places, on_start)
    poll = select.poll()
    poll.register(launch.fd, select.POLLIN)
    deadline = time.monotonic() + START_SECONDS
    while True:
        if not poll.poll(max(0, int(1000 * (deadline - time.monotonic())))):
            raise launch.give_up()
        if launch.read():
            break
    launch.finish()


def _environment(places: Places) -> dict[str, str]:
    """The caller's environment, in which a supervisor finds these very places."""
    env = dict(os.environ)
    if find_places(env) != places:
        env.update(
            SPARROW_STATE_DIR=str(places.state),
            SPARROW_RUNTIME_DIR=str(places.runtime),
            SPARROW_CONFIG=str(places.config),
        )
    return env


def _default_places(places: Places) -> bool:
    """Whether these are the places of the unit's supervisor, which knows nothing of our SPARROW_* variables."""
    usual = find_places({name: value for name, value in os.environ.items() if not name.startswith("SPARROW_")})
    return (places.state, places.config) == (usual.state, usual.config)
