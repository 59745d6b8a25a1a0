"""What dead monitors left to the zygote: ended bit by bit, so that nobody's new run waits for it.

A monitor that exits with 0 has seen its tree gone. Of any other something may be left, and that has fallen to the zygote; its
run has ended when all of that has, or when it could not be ended in time. What could not be is kept in sight, and ended as
soon as it can be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sparrow_mp.run.monitor import LEFT
from sparrow_mp.run.tree import Sweep
from sparrow_supervisor.core.life import exit_code

_LIMIT_S = 4.0
_SECOND_LIMIT_S = 0.5
"""Where the monitor has tried before."""
_SLICE_S = 0.03
_RETRY_S = 1.0


@dataclass(frozen=True)
class Ended:
    """A run whose monitor has ended, and what of its tree could not be ended."""

    run: str
    status: int
    left: tuple[int, ...] = ()


class Strays:
    """``reap`` collects whoever has ended, monitors too; ``monitors`` are the pids of those that live."""

    def __init__(self, reap: Callable[[], None], monitors: Collection[int]) -> None:
        self._sweep = Sweep(reap, monitors)
        self._bereft: list[tuple[Ended, float]] = []
        self._ended: list[Ended] = []
        self._look_at: float | None = None
        self.kept: tuple[int, ...] = ()
        """Who could not be ended yet, and no run waits for any more."""

    def take(self, run: str, status: int) -> None:
        """A monitor has been reaped."""
        if status == 0:
            self._ended.append(Ended(run, status))
        else:
            limit = _SECOND_LIMIT_S if exit_code(status) == LEFT else _LIMIT_S
            self._bereft.append((Ended(run, status), time.monotonic() + limit))

    @property
    def busy(self) -> bool:
        """Whether a run waits for its end."""
        return bool(self._bereft or self._ended)

    @property
    def timeout(self) -> float | None:
        """Seconds until there is something to do; None where there is not."""
        if self.busy:
            return 0.0
        return None if self._look_at is None else max(0.0, self._look_at - time.monotonic())

    def turn(self) -> list[Ended]:
        """Do a part of it; the runs that have ended."""
        now = time.monotonic()
        if self._bereft or self._look_at is None or now >= self._look_at:
            gone = self._sweep.step(now + _SLICE_S)
            self._part(gone)
            if gone:
                self.kept, self._look_at = (), None
            elif not self._bereft:
                self.kept, self._look_at = tuple(self._sweep.left), time.monotonic() + _RETRY_S
        ended, self._ended = self._ended, []
        return ended

    def _part(self, gone: bool) -> None:
        """No longer wait for those whose tree is gone, or whose time is over."""
        waiting = self._bereft
        self._bereft = []
        left = () if gone else tuple(self._sweep.left)
        for one, until in waiting:
            if gone or time.monotonic() >= until:
                self._ended.append(Ended(one.run, one.status, left))
            else:
                self._bereft.append((one, until))

    def close(self) -> None:
        """Let go of what is held."""
        self._sweep.close()
