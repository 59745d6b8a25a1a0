"""What a run may leave behind, and a process that ends it: the other side of test_tree.py.

Run as a program, it becomes a subreaper, lets an adversary loose, ends the tree below itself, and says as JSON what it saw.
Every process of the adversary holds the writing end of one pipe, so the pipe's end is the proof that all of them are gone.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

from sparrow_mp.run.tree import become_subreaper, children, descendants, end_tree, signal_tree

PIPE = -1
LATEST = time.monotonic() + 60
DEAF = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCONT, signal.SIGTSTP}


def fork(work: Callable[[], object]) -> int:
    """A child that does this and ends, at the latest when the test has long failed."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            work()
        finally:
            os._exit(0)
    return pid


def there() -> None:
    """Say that the adversary is up."""
    os.write(PIPE, b"!")


def wait() -> None:
    """Be there until killed."""
    there()
    while True:
        signal.pause()


def deaf() -> None:
    """Ignores whatever can be ignored."""
    for number in DEAF:
        signal.signal(number, signal.SIG_IGN)
    wait()


def in_a_session_of_its_own() -> None:
    """A daemon, as every book shows it: it is nobody's child, and in nobody's session."""

    def daemon() -> None:
        os.setsid()
        fork(deaf)

    os.waitpid(fork(daemon), 0)
    deaf()


def stopped() -> None:
    """Does not run, and so does not hear."""
    child = fork(signal.pause)
    os.kill(child, signal.SIGSTOP)
    there()
    os.kill(os.getpid(), signal.SIGSTOP)


def guarded() -> None:
    """Two that watch a third, which is there again as soon as it is gone."""

    def guard() -> None:
        os.setsid()
        while True:
            child = fork(wait)
            os.waitpid(child, 0)

    fork(guard)
    guard()


def hopping() -> None:
    """Is never the same process for longer than a moment: each forks its successor and ends."""
    there()
    while time.monotonic() < LATEST:
        if os.fork():
            os._exit(0)
        os.setsid()


def many() -> None:
    """A tree of three levels."""

    def branch(*widths: int) -> None:
        for _ in range(widths[0] if widths else 0):
            fork(lambda: branch(*widths[1:]))
        wait()

    branch(6, 3, 3)


def multiplying() -> None:
    """A fork bomb, if not one without an end."""
    there()
    while time.monotonic() < LATEST:
        if len(os.listdir("/proc")) < 600:
            if not os.fork():
                os.setsid()
        else:
            time.sleep(0.001)


def of_a_thread() -> None:
    """Children of a thread that is not the first."""

    def thread() -> None:
        fork(deaf)
        wait()

    threading.Thread(target=thread).start()
    wait()


def undead() -> None:
    """Leaves zombies, and orphans that end by themselves."""
    for _ in range(20):
        fork(lambda: None)
        fork(lambda: fork(lambda: None))
    wait()


ADVERSARIES: dict[str, tuple[Callable[[], object], int]] = {
    "waits": (wait, 1),
    "deaf": (deaf, 1),
    "in a session of its own": (in_a_session_of_its_own, 2),
    "stopped": (stopped, 1),
    "guarded": (guarded, 2),
    "hopping": (hopping, 1),
    "many": (many, 6 * 3 * 3 + 6 * 3 + 6 + 1),
    "multiplying": (multiplying, 1),
    "of a thread": (of_a_thread, 3),
    "undead": (undead, 1),
}
"""Each with how often it says that it is there."""


def reap() -> None:
    """Collect every child that has ended."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def is_alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def gone(reader: int) -> bool:
    """Whether nobody holds the other end any more."""
    while select.select([reader], [], [], 0)[0]:
        if not os.read(reader, 1 << 16):
            return True
    return False


def let_loose(name: str) -> tuple[int, int]:
    """The adversary's first process, and the pipe's reading end; it is there when this returns."""
    global PIPE
    work, count = ADVERSARIES[name]
    reader, PIPE = os.pipe()
    pid = fork(work)
    os.close(PIPE)
    said = 0
    while said < count:
        said += len(os.read(reader, count - said))
    return pid, reader


def end(name: str) -> dict[str, object]:
    """End an adversary."""
    pid, reader = let_loose(name)
    descriptors = os.listdir("/proc/self/fd")
    began = time.monotonic()
    left = end_tree(reap, limit=20.0)
    return {
        "took": time.monotonic() - began,
        "left": left,
        "gone": gone(reader),
        "alive": is_alive(pid),
        "children": children(os.getpid()),
        "descriptors": len(os.listdir("/proc/self/fd")) - len(descriptors),
    }


def spare() -> dict[str, object]:
    """End all but one child and what is below that."""
    spared, reader = let_loose("many")
    below = descendants(spared)
    others = [let_loose(name) for name in ("deaf", "in a session of its own")]
    left = end_tree(reap, spare={spared})
    report: dict[str, object] = {
        "left": left,
        "others gone": [gone(pipe) for _, pipe in others],
        "spared": sum(map(is_alive, [spared, *below])) == 1 + len(below),
        "size": 1 + len(below),
    }
    end_tree(reap)
    report["gone"] = gone(reader)
    return report


def impatient() -> dict[str, object]:
    """Nobody reaps: what has ended is still there, and is told when time is over."""
    pid, reader = let_loose("deaf")
    left = end_tree(lambda: None, limit=0.2)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it was killed, but may die later than time was over
    report: dict[str, object] = {"left": left == [pid], "alive": is_alive(pid), "gone": gone(reader)}
    reap()
    return report


def nothing() -> dict[str, object]:
    """There is no tree."""
    return {"left": end_tree(reap), "below": descendants(os.getpid())}


def tell() -> dict[str, object]:
    """A signal to all of a tree, once."""
    _, reader = let_loose("many")
    signal_tree(signal.SIGTERM, signal.SIGCONT)
    while children(os.getpid()):
        reap()
    return {"gone": gone(reader)}


def few_descriptors() -> dict[str, object]:
    """There are far more processes than descriptors to hold them by."""
    _, reader = let_loose("many")
    below = len(descendants(os.getpid()))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (20, hard))
    return {"below": below, "left": end_tree(reap), "gone": gone(reader)}


REPORTS: dict[str, Callable[[], dict[str, object]]] = {
    "spare": spare, "impatient": impatient, "nothing": nothing, "tell": tell, "few descriptors": few_descriptors,
}  # fmt: skip

if __name__ == "__main__":
    become_subreaper()
    os.setsid()
    what = sys.argv[1]
    print(json.dumps(REPORTS[what]() if what in REPORTS else end(what)))
