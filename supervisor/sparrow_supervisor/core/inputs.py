"""What can happen to the house. Each comes with the moment at which it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from sparrow_mp.events import ApprovalRequested, DiffStat, Status, Tokens
from sparrow_mp.wire import ExitReport


class Now(NamedTuple):
    """A moment: ``mono`` seconds for measuring, ``wall`` seconds since 1970 for telling."""

    mono: float
    wall: float


@dataclass(frozen=True)
class Terms:
    """What a run was submitted with, as far as it decides anything. Times in seconds, money in US dollars.

    ``client`` says whose it is: within a priority the clients take turns.
    """

    grace: float = 10.0
    timeout: float | None = None
    budget: float | None = None
    priority: int = 0
    client: str = ""


@dataclass
class Totals:
    """What a run's events add up to."""

    cost_usd: float = 0.0
    tokens: Tokens = field(default_factory=Tokens)
    diffs: dict[str, DiffStat] = field(default_factory=dict)
    proposed: dict[str, DiffStat] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    asked: ApprovalRequested | None = None
    """What it asked for when it last began to wait."""
    started: bool = False


# ── about one run ──


@dataclass(frozen=True)
class Admitted:
    """There is a place for it."""


@dataclass(frozen=True)
class Spawned:
    """The zygote has forked its monitor."""

    pid: int


@dataclass(frozen=True)
class SpawnRefused:
    """The zygote could not."""

    reason: str


@dataclass(frozen=True)
class Ready:
    """Its hello has come; ``pid`` is the engine's."""

    pid: int | None


@dataclass(frozen=True)
class InterruptAsked:
    """Somebody asked it to end. ``grace`` None means the run's own."""

    words: str = ""
    grace: float | None = None


@dataclass(frozen=True)
class LimitReached:
    """It reached a limit, or broke the protocol, and has to end as ``status``. ``told``: by its monitor, who ends it already."""

    status: Status
    reason: str
    at_once: bool = False
    told: bool = False


@dataclass(frozen=True)
class Spent:
    """Its cost so far has changed."""

    cost_usd: float


@dataclass(frozen=True)
class Exited:
    """Its monitor has ended and its tree is gone, but for the pids in ``left``, which could not be ended.

    ``status`` is what waitpid gave, None where nobody can say; ``left`` is None where nobody is left to know.
    """

    status: int | None
    account: str = ""
    left: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Drained:
    """Everything it said is recorded. ``report`` is its monitor's, None where there is none."""

    report: ExitReport | None
    totals: Totals


@dataclass(frozen=True)
class Due:
    """A moment that it had asked for has come."""


RunInput = Admitted | Spawned | SpawnRefused | Ready | InterruptAsked | LimitReached | Spent | Exited | Drained | Due


# ── about the house ──


@dataclass(frozen=True)
class Submitted:
    """Somebody wants a run."""

    run: str
    terms: Terms


@dataclass(frozen=True)
class About:
    """Something happened to one run."""

    run: str
    what: RunInput


@dataclass(frozen=True)
class Found:
    """A run of an earlier supervisor. ``phase`` is what the index says of it, ``asked`` why it was to end, where it was."""

    run: str
    terms: Terms
    phase: str
    started_wall: float | None = None
    asked: tuple[Status, str] | None = None


@dataclass(frozen=True)
class ShutdownAsked:
    """Somebody wants the supervisor to end, with its runs or without."""

    at_once: bool = False
    keep_runs: bool = False


@dataclass(frozen=True)
class RoomChanged:
    """The configuration allows another number of runs at once (0: any)."""

    max_runs: int
    max_queue: int


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Input = Submitted | About | Found | ShutdownAsked | RoomChanged | Tick
