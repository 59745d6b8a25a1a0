"""How much there is room for, as far as it depends on descriptors.

A run costs the supervisor a few of them and a client one or two, and ZeroMQ ends the process that has none left when somebody
connects. So runs beyond what there is room for wait in the queue, and connections beyond it are cut off (``doorkeeper.py``).
"""

from __future__ import annotations

import resource
from typing import NamedTuple

_FOR_A_RUN = 6
"""Three for its PAIR socket, its monitor's pidfd, its transcript, and one for its end (the outbox) or a second connection."""
_OWN = 48
"""What the supervisor has open without runs and clients, and opens for a moment."""
_SHARE = 8
_MOST_CONNECTIONS = 4096
_MANY = 1 << 20
_ENOUGH = 64


class Room(NamedTuple):
    """``runs`` at once, and ``connections`` to one of our sockets, that there are descriptors for."""

    runs: int
    connections: int

    @property
    def problems(self) -> list[str]:
        """What the user should know of it."""
        if self.runs >= _ENOUGH:
            return []
        few = f"the limit on open files leaves room for {self.runs} runs at once, and further ones wait"
        return [f"{few}; raise it (`ulimit -n 16384`, or LimitNOFILE=) and start the supervisor again"]


def room(open_files: int | None = None) -> Room:
    """The room that a limit on open files leaves (default: the limit of this process).

    Each of the two sockets for clients has an eighth, and one eighth is never given away: clients may come faster than
    they are counted.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if open_files is None else open_files
    limit = _MANY if limit == resource.RLIM_INFINITY else min(limit, _MANY)
    share = limit // _SHARE
    return Room(max(1, (limit - _OWN - 3 * share) // _FOR_A_RUN), min(share, _MOST_CONNECTIONS))
