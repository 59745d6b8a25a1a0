"""task-spooler: a client process a request, as its users have it; as many slots as there are cores."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from benchmarks.daemon import milliseconds_since
from benchmarks.peers.install import from_debian, version
from benchmarks.peers.peer import Peer, Unfit, Work, grown_by, until
from benchmarks.rows import Failed


class Spooler(Peer):
    name = "task-spooler"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._program = from_debian("task-spooler", "tsp")
        self.name = " ".join(version(str(self._program), "-V").split()[:3]).lower() or self.name
        self._env = {
            **os.environ,
            "TS_SOCKET": f"{work.folder}/socket",
            "TMPDIR": str(work.folder),
            "TS_MAXFINISHED": "1000",
        }
        slots = len(os.sched_getaffinity(0))
        self.note = f"task-spooler: a client process a request; {slots} slots; its log is a file a run, not structured"
        self._tsp("-S", str(slots))

    def first_line(self) -> float:
        start = time.perf_counter()
        job = self._tsp("/bin/echo", "here")
        grown_by(self._output(), len(b"here\n"), 0, "the line of task-spooler's echo")
        taken = milliseconds_since(start)
        self._wait([job])
        self._clear()
        return taken

    def runs_a_second(self) -> float:
        start = time.perf_counter()
        jobs = [self._tsp("/bin/true") for _ in range(self.work.runs)]
        self._wait(jobs)
        taken = time.perf_counter() - start
        self._clear()
        return self.work.runs / taken

    def lines_a_second(self, printer: str) -> float:
        raise Unfit("task-spooler hands the command a file, and reads no lines of it")

    def _output(self) -> Path:
        """The file of the only run there is. `tsp -o` tells it as well, but fails while the run has not begun."""
        until(lambda: bool(self._outputs()), "task-spooler's file")
        return self._outputs()[0]

    def _outputs(self) -> list[Path]:
        return list(self.work.folder.glob("ts-out.*"))

    def _wait(self, jobs: list[str]) -> None:
        """Until its list has the end of each. They end in no order, so the last one's end is not enough."""
        self._tsp("-w", jobs[-1])
        until(lambda: self._finished().issuperset(jobs), "the end of each run in task-spooler's list")

    def _finished(self) -> set[str]:
        rows = [line.split() for line in self._tsp().splitlines()[1:]]
        return {row[0] for row in rows if row[1] == "finished"}

    def _clear(self) -> None:
        """Empty its list, which it would otherwise search for ever longer, and remove the files."""
        self._tsp("-C")
        for output in self._outputs():
            output.unlink()

    def _tsp(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._program), *arguments],
            check=False,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(f"tsp {' '.join(arguments[:1])} failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def close(self) -> None:
        self._tsp("-K")
