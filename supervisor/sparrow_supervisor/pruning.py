"""Retention: now and then the oldest transcripts of ended runs go, as ``[retention]`` says; a live run's never.

It is done in small steps, since the loop has others to serve and there may be a hundred thousand of them: from the newest on,
a page of the index at a time, so that what has to go is known when it is come to.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import time
from collections import deque
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from sparrow_mp.regular import remove_tree
from sparrow_mp.retention import Keeping, Kept

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor

_log = logging.getLogger(__name__)

_FIRST_S = 1.0
_EVERY_S = 600.0
_STEP_S = 0.005
_LOOKED_AT_A_STEP = 50


class Pruning:
    """Looks after what is kept, with what the reactor has in hand."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._keeping: Keeping | None = None
        """What is being gone through at present."""
        self._page: deque[tuple[str, str]] = deque()
        self._before: tuple[str, str] | None = None
        self._gone = 0
        reactor.loop.later(_FIRST_S, self._begin)

    def _begin(self) -> None:
        self._reactor.loop.later(_EVERY_S, self._begin)
        wanted = self._reactor.config.retention
        if not (wanted.max_age_days or wanted.max_bytes or wanted.max_runs) or self._keeping is not None:
            return
        self._keeping = Keeping(
            time.time(),
            max_age=wanted.max_age_days * 86400 or None,
            max_bytes=wanted.max_bytes or None,
            max_runs=wanted.max_runs or None,
        )
        self._before, self._gone = None, 0
        self._go_on(self._keeping)

    def _go_on(self, keeping: Keeping) -> None:
        """Look at a few, the newest first, until one has to go: one at a time."""
        try:
            going_on = self._step(keeping)
        except sqlite3.Error as error:
            _log.error("retention: the index cannot be read or written: %s", error)
            going_on = False
        if going_on:
            self._reactor.loop.later(_STEP_S, partial(self._go_on, keeping))
            return
        self._keeping = None
        self._page.clear()
        if self._gone:
            _log.info("retention: %d transcripts of ended runs were deleted", self._gone)

    def _step(self, keeping: Keeping) -> bool:
        """Whether there is more to do. Raises sqlite3.Error."""
        for _ in range(_LOOKED_AT_A_STEP):
            if not self._page:
                self._page.extend(self._reactor.index.ended(self._before))
            if not self._page:
                return False
            self._before = ended, run = self._page.popleft()
            if not keeping.keeps(Kept(run, _moment(ended), self._size(run))):
                self._remove(run)
                break
        return True

    def _size(self, run: str) -> int:
        if not self._reactor.config.retention.max_bytes:
            return 0
        try:
            with os.scandir(self._reactor.places.transcript(run)) as files:
                return sum(file.stat(follow_symlinks=False).st_blocks * 512 for file in files)
        except OSError:
            return 0  # it has been deleted meanwhile

    def _remove(self, run: str) -> None:
        """The row goes last: without it what is left of the record would be taken for a run that has ended just now, and be
        counted once more.
        """
        remove_tree(self._reactor.places.transcript(run))
        self._reactor.index.delete(run)
        self._gone += 1


def _moment(ended: str) -> float:
    """A time in seconds since 1970. Who has an odd one is not too old, whatever it is."""
    try:
        return datetime.fromisoformat(ended).timestamp()
    except ValueError:
        return math.inf
