"""The zoo (tests/zoo/zoo.c) let loose in runs, and who of it is left.

Every trial has a copy of the program of its own. Whoever has it for an executable comes from that trial: this is what no
process can shed, whatever it does to its environment, session, parents, names and descriptors.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import processes
from tests.support.control import ask
from tests.support.house import House
from tests.support.waiting import eventually

SOURCE = Path(__file__).parents[1] / "zoo" / "zoo.c"
CAN_BUILD = shutil.which("cc") is not None

ADVERSARIES = (
    "deaf", "daemonized", "wiped", "hopping", "hopping_together", "hopping_by_exec", "bomb", "stopped", "traced", "guards",
    "brother", "cloned", "reaping", "headless", "restless", "undead", "elsewhere", "walled", "another_users",
    "killer", "stopper",
)  # fmt: skip
PATIENT = tuple(name for name in ADVERSARIES if name not in ("killer", "stopper"))
"""Those that wait for their end; the others kill or stop their run's monitor."""


def build(folder: Path) -> Path:
    """The zoo's program."""
    program = folder / "zoo"
    subprocess.run(["cc", "-O1", "-pthread", "-o", str(program), str(SOURCE)], check=True, timeout=60)
    return program


def living(program: Path) -> list[int]:
    """Every process that executes this file, also where only threads of it are left. Zombies execute nothing."""
    wanted = os.stat(program)
    return [pid for pid in processes.pids() if _executes(pid, wanted)]


def _executes(pid: int, wanted: os.stat_result) -> bool:
    for exe in _executables(pid):
        try:
            found = os.stat(exe)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


def _executables(pid: int) -> Iterator[str]:
    yield f"/proc/{pid}/exe"
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            yield f"/proc/{pid}/task/{thread}/exe"
    except OSError:
        return


@dataclass
class Trial:
    """An adversary that is up, in a run of its own."""

    house: House
    run: str
    program: Path
    cue: Path

    def give_cue(self, word: str) -> None:
        """The run's main process is to ``exit``, or to ``abort``, and leaves the adversary behind."""
        new = self.cue.with_suffix(".new")
        new.write_text(word)
        new.rename(self.cue)

    def left(self) -> list[str]:
        """Who is left, for people."""
        return [f"{pid} {processes.state(pid)}" for pid in living(self.program)]

    def away(self) -> None:
        """Forget the trial."""
        self.program.unlink()
        self.cue.unlink(missing_ok=True)


def begin(house: House, zoo: Path, adversary: str) -> Trial:
    """Let an adversary loose in a run. ``up`` says when it is there."""
    number = len(list(house.work.glob("zoo-*")))
    program = house.work / f"zoo-{adversary}-{number}-{os.urandom(3).hex()}"
    shutil.copy(zoo, program)
    cue = program.with_suffix(".cue")
    asked = {"op": "submit", "argv": [str(program), adversary, str(cue)], "cwd": str(house.work), "env": house.env}
    reply = ask(house, {**asked, "task": adversary})
    assert reply["ok"], reply
    return Trial(house, reply["run"], program, cue)


def up(trial: Trial) -> Trial:
    """Wait until the adversary is there."""
    trial.house.says(trial.run, "up\n", timeout=30)
    return trial


@contextmanager
def bystanders(house: House) -> Iterator[None]:
    """Another run and a process that is none of sparrow's: at the end of ``with`` both are as they were."""
    house.start()
    sibling = house.detach("--", "sh", "-c", "setsid sleep 1000 & sleep 1000; wait")
    main = house.pid_of(sibling)
    own = eventually(lambda: _children_of(main, 2), what="the sibling's processes")
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    watched = [main, processes.parent(main), *own, stranger.pid]
    before = [(pid, _birth(pid)) for pid in watched]
    try:
        yield
        assert [(pid, _birth(pid)) for pid in watched] == before, "a bystander was harmed"
        # Not at once: a monitor may be at work for a moment, or wait for a processor. Who was stopped stays so.
        eventually(lambda: all(processes.state(pid) == "S" for pid in watched), what="a bystander that goes on")
    finally:
        stranger.kill()
        stranger.wait()
        ask(house, {"op": "interrupt", "run": sibling, "now": True})


def _children_of(pid: int, count: int) -> list[int]:
    found = [child for child in processes.pids() if processes.parent(child) == pid]
    return found if len(found) == count else []


def _birth(pid: int) -> str:
    """When the process was born, as the kernel counts; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
