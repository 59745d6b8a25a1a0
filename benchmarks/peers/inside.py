"""What is measured of systemd, where it is: ``python -m benchmarks.peers.inside``, one word a line in, one JSON a line out.

It may be in namespaces of its own, where each request from outside would first have to enter.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
import uuid
from pathlib import Path

from benchmarks import tree
from benchmarks.daemon import milliseconds_since
from benchmarks.peers.bus import Bus
from benchmarks.peers.peer import grown_by, size
from benchmarks.rows import Failed

_RUN = ["systemd-run", "--user", "--quiet", "--collect"]


def first_line(folder: Path) -> float:
    """A unit that writes into a file; its line in there."""
    log = folder / "echo.log"
    before = size(log)
    start = time.perf_counter()
    with subprocess.Popen([*_RUN, "-p", f"StandardOutput=append:{log}", "/bin/echo", "here"]) as process:
        grown_by(log, len(b"here\n"), before, "the line of systemd's echo")
        taken = milliseconds_since(start)
        if process.wait():
            raise Failed("systemd-run failed")
    return taken


def runs_a_second(count: int) -> float:
    """A systemd-run a unit, all at once, each of which waits for its unit's end."""
    start = time.perf_counter()
    waiting = [subprocess.Popen([*_RUN, "--wait", "/bin/true"], stderr=subprocess.DEVNULL) for _ in range(count)]
    failed = sum(process.wait() != 0 for process in waiting)
    taken = time.perf_counter() - start
    if failed:
        raise Failed(f"{failed} of {count} of systemd's runs failed")
    return count / taken


@functools.cache
def _bus() -> Bus:
    """One connection for all calls."""
    return Bus()


def killed() -> float:
    """Milliseconds until the tree is gone, from the call to systemd's manager that stops its unit with SIGKILL."""
    mark = uuid.uuid4().hex
    unit = f"bench-{mark}.service"
    subprocess.run(
        [*_RUN, f"--unit={unit}", "-p", "KillSignal=SIGKILL", f"--setenv={tree.MARK}={mark}", *tree.ARGV], check=True
    )
    bus = _bus()
    try:
        return tree.killed(mark, lambda: bus.call("StopUnit", unit, "replace"))
    except (Failed, OSError):
        subprocess.run(["systemctl", "--user", "stop", unit], capture_output=True, check=False)
        raise


def main() -> None:
    """Serve until the input ends."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    ways = {"first": lambda: first_line(folder), "runs": lambda: runs_a_second(count), "killed": killed}
    for line in sys.stdin:
        try:
            answer: dict[str, object] = {"value": ways[line.strip()]()}
        except (Failed, OSError, subprocess.CalledProcessError) as reason:
            answer = {"failed": str(reason)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
