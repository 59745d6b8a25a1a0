"""systemd-run --user: transient units, in the user's systemd or in one that is booted for this."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.daemon import ROOT
from benchmarks.peers.install import version
from benchmarks.peers.peer import Peer, Unfit, Work
from benchmarks.peers.seat import Seat
from benchmarks.rows import Failed


class Systemd(Peer):
    name = "systemd-run"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.name = (
            version("systemd-run", "--version").partition(" (")[0].replace("systemd", "systemd-run") or self.name
        )
        self._seat = Seat(work.folder)
        where = "in namespaces of its own" if self._seat.enter else "that runs here"
        self.note = f"systemd-run: in the `systemd --user` {where}; its units write into a file by themselves"
        argv = [sys.executable, "-m", "benchmarks.peers.inside", str(work.folder), str(work.runs)]
        at = ["env", f"--chdir={ROOT}"]
        self._inside = subprocess.Popen([*self._seat.enter, *at, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def first_line(self) -> float:
        return self._ask("first")

    def runs_a_second(self) -> float:
        return self._ask("runs")

    def lines_a_second(self, printer: str) -> float:
        raise Unfit("systemd hands the command a file, or the journal's socket, and reads no lines of it")

    def killed(self) -> float:
        """Milliseconds from the call that stops a unit with a tree of 20 until each of them is dead."""
        return self._ask("killed")

    def _ask(self, what: str) -> float:
        assert self._inside.stdin is not None
        assert self._inside.stdout is not None
        self._inside.stdin.write(what.encode() + b"\n")
        self._inside.stdin.flush()
        line = self._inside.stdout.readline()
        if not line:
            raise Failed("what measures systemd ended")
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return float(answer["value"])

    def close(self) -> None:
        self._inside.communicate(timeout=20)
        self._seat.close()
