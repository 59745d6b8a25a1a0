"""Named points at which a test stops or kills a process of ours, to look at what becomes of everything then.

Armed by the environment variable ``SPARROW_FAILPOINTS``: a folder. Without it a point costs one look at a constant:

    if failpoints.ARMED:
        failpoints.reach("recorder.append.written")

To arm a point is to write a file of its name into that folder: ``kill`` or ``stop``, and where it is not the first process
to come by that is meant, ``kill 3``: the third time that one process comes by. The first process that gets there takes the
file away, writes its pid into ``NAME.reached``, and sends itself SIGKILL or SIGSTOP. So a point strikes once, also where the
process that is struck is started again.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

_VARIABLE = "SPARROW_FAILPOINTS"
_FOLDER = os.environ.get(_VARIABLE, "")
ARMED = bool(_FOLDER)
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_passed: Counter[tuple[str, int]] = Counter()


def reach(name: str) -> None:
    """This process is at the point now: where that is armed, it goes no further."""
    path = os.path.join(_FOLDER, name)
    try:
        with open(path, encoding="ascii") as file:
            action, _, count = file.read().strip().partition(" ")
            arming = os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return
    _passed[name, arming] += 1
    if action not in _SIGNALS or _passed[name, arming] < int(count or 1):
        return
    try:
        os.unlink(path)
    except FileNotFoundError:
        return  # another process was struck
    new = f"{path}.new"
    with open(new, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    os.rename(new, f"{path}.reached")
    os.kill(os.getpid(), _SIGNALS[action])
