"""What runs say: checked, recorded, published, acknowledged, in this order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import msgspec

from sparrow_mp import wire
from sparrow_mp.errors import BadRequest
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.run.outbox import Outbox
from sparrow_supervisor.core import totals
from sparrow_supervisor.core.inputs import LimitReached, Ready, RunInput, Spent
from sparrow_supervisor.hub import Hub
from sparrow_supervisor.link import Group, ProtocolBroken, check
from sparrow_supervisor.member import Member
from sparrow_supervisor.recorder import Recorder

_log = logging.getLogger(__name__)

_FRAMES_A_TURN = 16
_BYTES_A_TURN = 1 << 16
_TIMES_A_TURN = 4
_LINES_A_TIME = 1000
_GAPS_ALLOWED = 1000
"""More than can be under way when something is lost, each of which is a gap of its own."""


class Intake:
    """``tell`` takes what the core has to know; ``receipt`` takes the confirmation of an injection or an approval; ``asked`` is
    called when a run has asked for an approval.
    """

    def __init__(
        self,
        recorder: Recorder,
        hub: Hub,
        tell: Callable[[str, RunInput], None],
        greeted: Callable[[Member], None],
        receipt: Callable[[str, wire.Receipt], None],
        asked: Callable[[Member], None],
    ) -> None:
        self._recorder = recorder
        self._hub = hub
        self._tell = tell
        self._greeted = greeted
        self._receipt = receipt
        self._asked = asked

    def turn(self, member: Member) -> bool:
        """Take a bounded part of what one run has sent. True where there may be more: then call again, and in its turn among
        others where the run is ``hungry``.
        """
        member.hungry = False
        if member.link is None or member.stalled:
            return False
        before = self._recorder.seq(member.run)
        taken = size = 0
        while taken < _FRAMES_A_TURN and size < _BYTES_A_TURN and (frame := self._next(member)) is not None:
            taken += 1
            size += len(frame)
            self._take(member, frame)
        member.hungry = taken == _FRAMES_A_TURN or size >= _BYTES_A_TURN
        if taken:
            self._respond(member, before)
        return taken > 0

    def _respond(self, member: Member, before: int) -> None:
        """Acknowledge what was recorded in this turn, unless what the run said has ended it."""
        recorded = self._recorder.seq(member.run)
        if member.link is not None:
            if recorded != before:
                member.link.acknowledge(recorded)
                if ARMED:
                    reach("intake.acknowledged")
            member.link.pump()

    @staticmethod
    def _next(member: Member) -> bytes | None:
        return member.link.receive() if member.link is not None and not member.stalled else None

    def _take(self, member: Member, frame: bytes) -> None:
        kind = frame[:1]
        try:
            if kind == wire.EVENTS:
                self._take_events(member, *wire.split_events(frame))
            elif kind == wire.HELLO:
                self._take_hello(member, msgspec.json.decode(frame[1:], type=wire.Hello))
            elif kind == wire.RECEIPT:
                self._receipt(member.run, msgspec.json.decode(frame[1:], type=wire.Receipt))
            else:
                raise BadRequest(f"a frame of the unknown kind {kind!r}")
        except (msgspec.DecodeError, BadRequest) as error:
            self._break(member, f"it broke the protocol: {error}")

    def _take_hello(self, member: Member, hello: wire.Hello) -> None:
        assert member.link is not None
        if hello.run != member.run:
            self._break(member, "it broke the protocol: it says that it is another run")
            return
        if hello.protocol != wire.PROTOCOL:
            _log.warning("run %s: %s", member.run, wire.foreign(member.run, hello.protocol))
        member.protocol = hello.protocol
        recorded = self._recorder.seq(member.run)
        if hello.last > recorded:
            member.link.resend(recorded)
        else:
            member.link.acknowledge(recorded)
        self._tell(member.run, Ready(hello.pid))
        if hello.limit is not None:
            status, reason = hello.limit
            self._tell(member.run, LimitReached(status, reason, told=True))
        self._greeted(member)

    def _take_events(self, member: Member, first: int, lines: bytes) -> None:
        assert member.link is not None
        if member.broken:
            return
        recorded = self._recorder.seq(member.run)
        if first > recorded + 1:
            member.gaps += 1
            if member.gaps > _GAPS_ALLOWED:
                self._break(member, f"it broke the protocol: it does not say what follows event {recorded}")
            else:
                member.link.resend(recorded)  # something was lost on the way, which is in the outbox
            return
        member.gaps = 0
        known = recorded + 1 - first
        if known:
            lines = b"\n".join(lines.split(b"\n", known)[known:])
            if not lines:
                member.link.acknowledge(recorded)
                return
        if not self.record(member, lines):
            member.stalled = True

    def record(self, member: Member, lines: bytes) -> bool:
        """Check, record and publish lines that follow the last recorded event. False where the disk is full."""
        first, since = self._recorder.seq(member.run) + 1, self._recorder.open(member.run).ts
        try:
            groups = check(lines, member.run, first, since)
        except ProtocolBroken as broken:
            good = b"".join(line + b"\n" for line in lines.split(b"\n")[: broken.good])
            if good and not self._keep(member, check(good, member.run, first, since), first):
                return False
            self._break(member, f"it broke the protocol: {broken.reason}")
            return True
        return not groups or self._keep(member, groups, first)

    def _keep(self, member: Member, groups: list[Group], first: int) -> bool:
        data = groups[0].lines if len(groups) == 1 else b"".join(group.lines for group in groups)
        last = first - 1 + sum(len(group.events) for group in groups)
        if not self._recorder.append(member.run, data, last, groups[-1].events[-1].ts):
            return False
        if ARMED:
            reach("intake.recorded")
        seq = first - 1
        cost = member.totals.cost_usd
        asked = False
        for group in groups:
            seq += len(group.events)
            self._hub.publish(member.run, group.kind, group.lines, seq)
            if group.kind in totals.COUNTED:
                totals.add(member.totals, group.events)
            asked = asked or group.kind == "ApprovalRequested"
        if asked:
            self._asked(member)  # not sooner: what is decided already needs nobody's notice
        if ARMED:
            reach("intake.published")
        if member.totals.cost_usd != cost:
            self._tell(member.run, Spent(member.totals.cost_usd))
        return True

    def _break(self, member: Member, reason: str) -> None:
        if not member.broken:
            member.broken = True
            _log.error("run %s: %s; it is ended", member.run, reason)
            self._tell(member.run, LimitReached("failed", reason, at_once=True))

    def drain(self, member: Member) -> Literal["done", "more", "full"]:
        """Record a bounded part of what the outbox of a run that has ended still holds. ``full``: the disk is."""
        path = member.folder / "outbox"
        try:
            outbox = Outbox(path, member.run)
        except (OSError, ValueError):
            return "done"  # it never got as far as having one
        try:
            lines = outbox.unrecorded(self._recorder.seq(member.run))
            many = _LINES_A_TIME * _TIMES_A_TURN
            for start in range(0, min(len(lines), many), _LINES_A_TIME):
                if member.broken:
                    return "done"
                if not self.record(member, b"\n".join(lines[start : start + _LINES_A_TIME]) + b"\n"):
                    return "full"
        finally:
            outbox.close()
        return "more" if len(lines) > many else "done"
