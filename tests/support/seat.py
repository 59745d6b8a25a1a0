"""A seat: a real `systemd --user` with a journal, booted by a test in namespaces of its own, and a house in it.

What is in there has its own /run and its own process numbers; the state folder is seen from both sides.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.house import BIN, COMMAND_TIMEOUT_S, Done, House
from tests.support.waiting import eventually

JOURNALD = Path("/usr/lib/systemd/systemd-journald")


def hierarchy() -> Path | None:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(fields.split()[4])
    return None


TOP = hierarchy()
needs_systemd = [
    pytest.mark.acceptance,
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or TOP is None or not os.access(TOP, os.W_OK), reason="needs root and a writable cgroup2"
    ),
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in ("systemd", "systemctl", "unshare", "nsenter", "runuser")),
        reason="needs systemd, unshare, nsenter and runuser",
    ),
]

_BOOT = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
{way}
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/systemd/journal {runtime}
chown {uid}:{uid} {runtime}
chmod 700 {runtime}
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
chown {uid}:{uid} /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/others
if [ -s /etc/machine-id ]; then :; else
    printf '%s\\n' {machine} >/run/machine-id
    if [ -e /etc/machine-id ]; then mount --bind /run/machine-id /etc/machine-id; fi
fi
echo 0 >/sys/fs/cgroup/others/cgroup.procs
if [ -x {journald} ]; then {journald} & fi
sh -c 'echo 0 >/sys/fs/cgroup/cgroup.procs; exec "$@"' sh {person} systemd --user --log-target=journal &
echo up
wait $!
kill -9 -1
"""


class Seat(House):
    """The house of root, or of the user of that name. ``close`` ends the user's systemd and fails for what is left."""

    def __init__(self, user: str | None = None, uid: int = 0, way: str = "true") -> None:
        super().__init__()
        self._user, self._uid = user, uid
        for name in ("SPARROW_STATE_DIR", "SPARROW_RUNTIME_DIR", "SPARROW_CONFIG", "SPARROW_SUPERVISOR_RESTART"):
            del self.env[name]
        del self.env["SPARROW_TCP"]
        self.env["XDG_RUNTIME_DIR"] = f"/run/user/{uid}"
        self.configure('[ndjson]\ntcp = "127.0.0.1:0"\n')
        for path in (self.top, *self.top.rglob("*")):
            os.chown(path, uid, uid)
        assert TOP is not None
        self.cgroup = TOP / f"sparrow-test-{uuid.uuid4().hex[:8]}"
        self.cgroup.mkdir()
        for controller in ("memory", "pids"):
            try:
                (TOP / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError:
                pass  # what is not to be had here is tested where it is
        self._boot(way)

    def _boot(self, way: str) -> None:
        person = f"runuser -u {self._user} --" if self._user else ""
        given = " ".join(f"{name}={value}" for name, value in self.env.items() if name in ("HOME", "XDG_RUNTIME_DIR"))
        script = _BOOT.format(
            way=way,
            uid=self._uid,
            runtime=self.env["XDG_RUNTIME_DIR"],
            machine=uuid.uuid4().hex,
            journald=JOURNALD,
            person=f"{person} env -i PATH=$PATH PYTHONDONTWRITEBYTECODE=1 SPARROW_TEST_HOUSE={self.id} {given}",
        )
        enter = f'echo 0 >"{self.cgroup}/cgroup.procs"; exec unshare --mount --pid --ipc --cgroup --fork --kill-child sh -c "$0"'
        self._log = (self.top / "boot.log").open("wb")
        self._outer = subprocess.Popen(
            ["sh", "-c", enter, script],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        try:
            eventually(
                lambda: self.systemctl("is-system-running").out.strip() in ("running", "degraded"), what="systemd"
            )
        except AssertionError as error:
            self._outer.kill()
            raise AssertionError(f"{error}\n{(self.top / 'boot.log').read_text()}") from None

    @property
    def _init(self) -> int:
        """The first process of the namespaces, as it is seen from here."""
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        assert children, "it has not forked yet"
        return int(children[0])

    def inside(self, *command: str, env: Mapping[str, str] | None = None, root: bool = False) -> Done:
        """Run a command in there, as the seat's user."""
        variables = [f"{name}={value}" for name, value in {**self.env, **(env or {})}.items()]
        person = ["runuser", "-u", self._user, "--"] if self._user and not root else []
        enter = ["nsenter", "-t", str(self._init), "--mount", "--pid", "--ipc", "--cgroup", "--"]
        line = [*enter, *person, "env", "-i", *variables, "sh", "-c", f'cd {self.work} && exec "$@"', "sh", *command]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT_S)
        return Done(command, done.returncode, done.stdout, done.stderr)

    def sparrow(self, *args: str | Path, **more: Any) -> Done:
        """Run `sparrow ARGS` in there."""
        return self.inside(str(BIN / "sparrow"), *map(str, args), env=more.get("env"))

    def status(self) -> dict[str, Any]:
        """`sparrow status --json` in there, whose sockets may be another user's."""
        return self.sparrow("status", "--json").ok().rows()[0]

    def record(self, run: str) -> dict[str, Any]:
        """The run's row of `sparrow ps -a --json` in there."""
        (row,) = [row for row in self.ps() if row["run"] == run]
        return row

    def systemctl(self, *args: str) -> Done:
        """`systemctl --user ARGS`."""
        return self.inside("systemctl", "--user", "--no-pager", *args)

    def shown(self, name: str, unit: str = "sparrow") -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit).ok().out.strip()

    def journal(self, *args: str) -> list[dict[str, Any]]:
        """Entries of the journal."""
        return self.inside("journalctl", "--no-pager", "-o", "json", *args, root=True).ok().rows()

    def configure(self, text: str) -> None:
        """Write the configuration file, where the unit finds it."""
        path = self.home / ".config" / "sparrow" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def drop_in(self, text: str, unit: str = "sparrow.service") -> None:
        """Change a unit, as `systemctl --user edit` does."""
        path = self.home / ".config" / "systemd" / "user" / f"{unit}.d" / "test.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.systemctl("daemon-reload").ok()

    def cgroups(self) -> list[str]:
        """The cgroups of our units that there still are."""
        return [str(path.relative_to(self.cgroup)) for path in self.cgroup.rglob("sparrow*") if path.is_dir()]

    def is_still(self) -> bool:
        """Whether both units have ended and left nothing."""
        return not self.cgroups() and self.shown("ActiveState", "sparrow-runs") in ("inactive", "failed")

    def log_out(self) -> None:
        """End the user's systemd, as the end of the last session does."""
        self.systemctl("start", "exit.target")
        self._outer.wait(COMMAND_TIMEOUT_S)

    def close(self) -> None:
        """End all of it."""
        try:
            if self._outer.poll() is None:
                self.log_out()
        except (AssertionError, subprocess.TimeoutExpired):
            pass  # what is left is told below
        left = [processes.title(pid) for pid in self.processes()]
        if self._outer.poll() is None:
            self._outer.kill()
            self._outer.wait()
        self._log.close()
        (self.cgroup / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + 10
        while self.cgroup.exists() and time.monotonic() < deadline:
            for path in sorted(self.cgroup.rglob("*"), reverse=True):
                if path.is_dir():
                    try:
                        path.rmdir()
                    except OSError:
                        continue
            try:
                self.cgroup.rmdir()
            except OSError:
                time.sleep(0.02)  # the dead are still being counted
        for pid in self.processes():
            processes.kill(pid, signal.SIGKILL)
        faults = [f"process is still there: {title}" for title in left] + self._left_files() + self._complaints()
        shutil.rmtree(self.top, ignore_errors=True)
        assert not faults, "left behind: " + "\n".join(faults)
