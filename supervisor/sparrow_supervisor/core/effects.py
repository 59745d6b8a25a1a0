"""What the house wants done. The reactor does it, and decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparrow_mp.events import Outcome


@dataclass(frozen=True)
class Accepted:
    """The submission is taken; ``position`` is its place in the queue (from 1), None where it starts at once."""

    run: str
    position: int | None


@dataclass(frozen=True)
class Refused:
    """The request is not taken, with an error code of the contract and a sentence."""

    code: str
    message: str


@dataclass(frozen=True)
class Spawn:
    """Have the zygote fork the run's monitor."""

    run: str


@dataclass(frozen=True)
class Tell:
    """Hand the interruption to the run's monitor, which enforces the grace period (seconds) itself."""

    run: str
    words: str
    grace: float


@dataclass(frozen=True)
class KillMonitor:
    """The monitor did not end its run in time: have the zygote SIGKILL it, and what it leaves."""

    run: str


@dataclass(frozen=True)
class Drain:
    """Read the run's outbox to its end, record it, and say Drained."""

    run: str


@dataclass(frozen=True)
class Save:
    """Write into the index."""

    run: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Finish:
    """Record the run's last events (an Error with ``error`` where given, then RunFinished), and forget its working state.

    ``began``: it was started, so a RunStarted is due where the run itself did not get to say so.
    """

    run: str
    outcome: Outcome
    error: str | None
    began: bool = True


@dataclass(frozen=True)
class Stop:
    """Nothing is left to supervise, or the runs are to be left alone: the supervisor ends."""

    keep_runs: bool


Effect = Accepted | Refused | Spawn | Tell | KillMonitor | Drain | Save | Finish | Stop
