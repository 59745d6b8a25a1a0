"""What the supervisor does once a second: it says again what can be lost, holds floods back, and keeps what it would else have
to read again.
"""

from __future__ import annotations

import heapq
import sqlite3
import time
from typing import TYPE_CHECKING

from sparrow_mp import wire

if TYPE_CHECKING:
    from sparrow_supervisor.member import Member
    from sparrow_supervisor.reactor import Reactor

_EVERY_S = 1.0
_FLOODS_REST = 1.5
"""Measured: others' events are then as late as on a quiet machine, and a flood gets two fifths of what it would alone."""
_SUM_EVERY = 50_000
"""Events. A tenth of a second's reading."""
_SUMS_A_TIME = 10


class Pulse:
    """Beats for as long as the loop turns, whatever one beat may fail at."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self.late_s = 0.0
        """How late the loop was when it last called what was due."""
        self._due = 0.0

    def begin(self) -> None:
        """Beat from now on."""
        self._due = time.monotonic() + _EVERY_S
        self._reactor.loop.later(_EVERY_S, self._beat)

    def _beat(self) -> None:
        self.late_s = max(0.0, time.monotonic() - self._due)
        self.begin()
        reactor = self._reactor
        reactor.hub.heads()
        reactor.delivery.repeat()
        reactor.save_owed()
        self.hold_floods_back()
        for member in reactor.members.values():
            member.floods = member.hungry
        self._keep_sums()

    def flooded_by(self, member: Member) -> None:
        """A run says more than can be taken at once."""
        if not member.floods:
            member.floods = True
            self.hold_floods_back()

    def hold_floods_back(self) -> None:
        """Who says more than can be taken at once may do so, but where others work not with all that there is."""
        members = self._reactor.members.values()
        self._reactor.loop.rest = _FLOODS_REST if any(not member.floods for member in members) else 0.0

    def _keep_sums(self) -> None:
        """Whoever takes over a run reads again only what has come since."""
        reactor = self._reactor

        def unkept(member: Member) -> int:
            return reactor.recorder.seq(member.run) - member.summed

        for member in heapq.nlargest(_SUMS_A_TIME, reactor.members.values(), key=unkept):
            if unkept(member) < _SUM_EVERY:
                return
            seq = reactor.recorder.seq(member.run)
            try:
                reactor.index.keep_sums(member.run, seq, wire.encode(member.totals))
            except sqlite3.Error:
                return  # the disk is full, which whatever else is written tells
            member.summed = seq
