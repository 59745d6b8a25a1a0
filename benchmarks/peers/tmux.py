"""tmux: a control client's requests and what it is told of a window's output; it records neither ends nor lines."""

from __future__ import annotations

import subprocess
import time

from benchmarks.daemon import milliseconds_since
from benchmarks.peers.install import on_path, version
from benchmarks.peers.peer import Peer, Unfit, Work
from benchmarks.rows import Failed

_NOTE = "tmux: a window a command, its line at a control client"
_TRIES = 5


class Tmux(Peer):
    name = "tmux"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.note, self._lost = _NOTE, 0
        self._base = [str(on_path("tmux")), "-S", f"{work.folder}/socket", "-f", "/dev/null"]
        self._client = subprocess.Popen(
            [*self._base, "-C", "new-session"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.name = version(self._base[0], "-V") or "tmux"

    def first_line(self) -> float:
        for _ in range(_TRIES):
            if taken := self._told():
                return taken
            self._lost += 1
            self.note = (
                f"{_NOTE}; {self._lost} times it closed the window before it had told the line, which was then lost"
            )
        raise Failed(f"tmux closed {_TRIES} windows before it had told their line")

    def _told(self) -> float:
        """Milliseconds until the control client is told of the line; 0 where the window closes without it."""
        assert self._client.stdin is not None
        assert self._client.stdout is not None
        taken = 0.0
        start = time.perf_counter()
        self._client.stdin.write(b"new-window -d /bin/echo here\n")
        self._client.stdin.flush()
        for line in self._client.stdout:
            if line.startswith(b"%output ") and b" here" in line:
                taken = milliseconds_since(start)
            elif line.startswith(b"%unlinked-window-close"):
                return taken
        raise Failed("tmux ended")

    def runs_a_second(self) -> float:
        raise Unfit("tmux records no end")

    def lines_a_second(self, printer: str) -> float:
        raise Unfit("tmux has a screen and no log")

    def close(self) -> None:
        subprocess.run([*self._base, "kill-server"], check=False, capture_output=True)
        self._client.communicate()
