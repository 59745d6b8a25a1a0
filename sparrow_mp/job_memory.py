"""What is remembered of the jobs, in ``schedules.json``: when each last fired, its last run, why it did not fire.

The supervisor alone writes it; the command line reads it. Moments are seconds since 1970.
"""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Literal

import msgspec

from sparrow_mp.regular import read_regular

Why = Literal["cron", "missed", "watch", "asked"]
"""Why a job fired: its moment came; its moment had been missed; files changed; somebody said so."""

_MOST_BYTES = 16 << 20


class Firing(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A job fires: ``run`` is the id that its run has or will have, ``due`` the moment that it is about.

    ``echo`` where files that changed during the job's own run made it fire.
    """

    run: str
    why: Why
    due: float
    echo: bool = False


class Fired(Firing, kw_only=True, omit_defaults=True):
    """A firing that has become a run, ``at`` this moment."""

    at: float


class NotFired(msgspec.Struct, kw_only=True):
    """A firing that came to nothing, and why: a sentence."""

    at: float
    due: float
    reason: str


class Memory(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is remembered of one job.

    Every moment up to ``settled`` is decided. ``rule`` is the cron line and zone that this is about: for another one it
    begins anew. ``waiting`` is a firing that is decided, and whose run cannot begin yet.
    """

    settled: float
    rule: str = ""
    last: Fired | None = None
    not_fired: NotFired | None = None
    waiting: Firing | None = None


class Remembered(msgspec.Struct, kw_only=True):
    """The file. ``seed`` makes the runs' ids ours."""

    seed: str
    jobs: dict[str, Memory] = {}


def run_of(seed: str, job: str, due: float) -> str:
    """The id of the run of a job's moment, a UUIDv4: always the same one, so that no moment has two runs."""
    digest = hashlib.sha256(f"{seed}\0{job}\0{due:.0f}".encode()).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def read_memory(path: Path) -> Remembered | None:
    """What is remembered; None where there is nothing yet. Raises OSError, msgspec.DecodeError."""
    try:
        return msgspec.json.decode(read_regular(path, _MOST_BYTES), type=Remembered)
    except FileNotFoundError:
        return None
