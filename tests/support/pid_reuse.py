"""Numbers of processes that are given away at the worst moment: the other side of the tests of L3.

Run as the first process of a PID namespace, with a number of trials. In each a process of a tree that is being ended dies by
itself just before the sweep opens it (or just before it signals it), and a stranger that is not of that tree gets its number.
Says as JSON how many strangers there were, how many really had the number, and how many were untouched.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparrow_mp.run import tree

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def reap() -> None:
    """Collect every child that has ended."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


class Strangers:
    """A process that is not of the tree, and makes strangers with a given number."""

    def __init__(self) -> None:
        asked, self._ask = os.pipe()
        self._answer, answers = os.pipe()
        if os.fork() == 0:
            os.close(self._ask)
            self._serve(asked, answers)

    def _serve(self, asked: int, answers: int) -> None:
        stranger = -1
        while line := os.read(asked, 64):
            wanted = int(line)
            if wanted:
                LAST_PID.write_text(str(wanted - 1))
                stranger = os.fork()
                if stranger == 0:
                    while True:
                        signal.pause()
                os.write(answers, b"%d" % stranger)
            else:  # how is the last one?
                state = Path(f"/proc/{stranger}/stat").read_text().rpartition(")")[2].split()[0]
                os.kill(stranger, signal.SIGKILL)
                os.waitpid(stranger, 0)
                os.write(answers, state.encode())
        os._exit(0)

    def take(self, number: int) -> int:
        """The pid that the new stranger got."""
        os.write(self._ask, b"%d" % number)
        return int(os.read(self._answer, 64))

    def untouched(self) -> bool:
        """Whether the stranger lives and is not stopped. It is ended now."""
        os.write(self._ask, b"0")
        return os.read(self._answer, 64) in (b"S", b"R")


def trial(strangers: Strangers, before: str) -> tuple[bool, bool]:
    """One victim whose number is given away just ``before`` it would be opened, or signalled: given away? untouched?"""
    victim = os.fork()
    if victim == 0:
        while True:
            signal.pause()
    got = -1
    genuine: dict[str, Callable[..., Any]] = {"open": os.pidfd_open, "signal": signal.pidfd_send_signal}

    def give_away() -> None:
        nonlocal got
        if got < 0:
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            got = strangers.take(victim)

    def late(*arguments: Any) -> Any:
        give_away()
        return genuine[before](*arguments)

    if before == "open":
        os.pidfd_open = late  # type: ignore[assignment]  # the moment is chosen; what is called is the real thing
    else:
        signal.pidfd_send_signal = late
    try:
        left = tree.end_tree(reap, limit=10)
    finally:
        os.pidfd_open, signal.pidfd_send_signal = genuine["open"], genuine["signal"]
    assert left == []
    return got == victim, strangers.untouched()


def main(trials: int) -> None:
    strangers = Strangers()
    if os.fork() == 0:  # the tree's top is neither the namespace's first process nor the strangers' parent
        tree.become_subreaper()
        seen = [trial(strangers, ("open", "signal")[number % 2]) for number in range(trials)]
        given, untouched = (sum(column) for column in zip(*seen, strict=True))
        print(json.dumps({"trials": trials, "given away": given, "untouched": untouched}), flush=True)
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
