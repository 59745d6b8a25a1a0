"""A `systemd --user`: the one of whoever measures, else (as root) one that is booted in namespaces of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from pathlib import Path

from benchmarks.peers.install import on_path
from benchmarks.peers.peer import Unfit

_BOOT = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/others
echo 0 >/sys/fs/cgroup/others/cgroup.procs
if [ ! -s /etc/machine-id ]; then
    printf '%s\n' "$MACHINE" >/run/machine-id
    if [ -e /etc/machine-id ]; then mount --bind /run/machine-id /etc/machine-id; fi
fi
sh -c 'echo 0 >/sys/fs/cgroup/cgroup.procs; exec systemd --user --log-target=null' &
wait $!
"""
_PATIENCE_S = 10


class Seat:
    """Where ``enter`` leads. Raises Unfit where neither is to be had."""

    def __init__(self, folder: Path) -> None:
        self.enter: list[str] = []
        """What a command line begins with that is to run in there."""
        self._outer: subprocess.Popen[bytes] | None = None
        for name in ("systemd-run", "systemctl"):
            on_path(name)
        if not self._answers():
            self._boot(folder)

    def _answers(self) -> bool:
        asked = [*self.enter, "systemctl", "--user", "is-system-running"]
        done = subprocess.run(asked, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return done.stdout.strip() in ("running", "degraded")

    def _boot(self, folder: Path) -> None:
        top = _hierarchy()
        missing = [name for name in ("systemd", "unshare", "nsenter") if shutil.which(name) is None]
        if os.geteuid() or top is None or not os.access(top, os.W_OK) or missing:
            raise Unfit("no `systemd --user` runs here, and to boot one takes root and a writable cgroup2")
        self._cgroup = top / f"sparrow-bench-{uuid.uuid4().hex[:8]}"
        self._cgroup.mkdir()
        home = folder / "home"
        home.mkdir()
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": "/run/user/0",
            "MACHINE": uuid.uuid4().hex,
        }
        script = f'echo 0 >"{self._cgroup}/cgroup.procs"; exec unshare --mount --pid --ipc --cgroup --fork --kill-child sh -c "$0"'
        with open(os.devnull, "r+b") as nothing:
            self._outer = subprocess.Popen(
                ["sh", "-c", script, _BOOT],
                env=env,
                stdin=nothing,
                stdout=nothing,
                stderr=nothing,
                start_new_session=True,
            )
        given = [f"{name}={value}" for name, value in env.items()]
        deadline = time.monotonic() + _PATIENCE_S
        while not (self._enters(given) and self._answers()):
            if time.monotonic() > deadline or self._outer.poll() is not None:
                self.close()
                raise Unfit("no `systemd --user` runs here, and one that was booted in namespaces did not come up")
            time.sleep(0.05)

    def _enters(self, given: list[str]) -> bool:
        """Whether the namespaces are there; then ``enter`` leads into them."""
        assert self._outer is not None
        try:
            children = (
                Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text(encoding="ascii").split()
            )
        except OSError:
            return False
        if children:
            namespaces = ["--mount", "--pid", "--ipc", "--cgroup"]
            self.enter = ["nsenter", "-t", children[0], *namespaces, "--", "env", "-i", *given]
        return bool(children)

    def close(self) -> None:
        """End what was booted."""
        if self._outer is None:
            return
        self._outer.kill()
        self._outer.wait()
        (self._cgroup / "cgroup.kill").write_text("1", encoding="ascii")
        deadline = time.monotonic() + _PATIENCE_S
        while self._cgroup.exists() and time.monotonic() < deadline:
            for path in sorted((path for path in self._cgroup.rglob("*") if path.is_dir()), reverse=True):
                _remove(path)
            _remove(self._cgroup)
            time.sleep(0.02)  # the dead are still being counted


def _remove(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        pass  # busy: it is tried again


def _hierarchy() -> Path | None:
    """Where cgroup v2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return Path(fields.split()[4])
    return None
