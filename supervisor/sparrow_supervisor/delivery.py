"""Injections and approvals on their way to a run: in the index until the run says that they are in its outbox.

They are sent again after a reconnection and after a while without an answer; the monitor knows what it has had.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from sparrow_mp import wire
from sparrow_mp.errors import BadRequest, RateLimited, StateError
from sparrow_mp.failpoints import ARMED, reach
from sparrow_supervisor.control import Answer
from sparrow_supervisor.index import Index
from sparrow_supervisor.member import Member

_log = logging.getLogger(__name__)

_REPEAT_AFTER_S = 1.0
_MOST_KEPT_BYTES = 1 << 20
"""What may be on its way to one run, which has not begun yet or does not answer."""


@dataclass
class _Parcel:
    run: str
    frame: bytes
    answer: Answer | None
    sent_at: float


class Delivery:
    """What waits for a receipt."""

    def __init__(self, index: Index, members: Mapping[str, Member]) -> None:
        self._index = index
        self._members = members
        self._parcels: dict[str, _Parcel] = {}
        self._undropped: set[str] = set()
        self._count = itertools.count()

    def new_id(self) -> str:
        """An id that sorts by time, so that what waits is sent in its order."""
        return f"{time.time_ns():020d}-{next(self._count):06d}"

    def post(self, member: Member, request: str, frame: bytes, answer: Answer) -> None:
        """Keep a frame until it is confirmed, and send it if the run is there. Raises BadRequest, RateLimited, StateError."""
        known = self._parcels.get(request)
        if known is not None and known.run != member.run:
            raise BadRequest(
                f"the id {request} is already on its way to run {known.run[:8]}; each needs one of its own"
            )
        if known is not None:  # asked again: the answer to the first time did not arrive
            known.answer = answer
            self._send(member, request)
            return
        kept = sum(len(parcel.frame) for parcel in self._parcels.values() if parcel.run == member.run)
        if kept >= _MOST_KEPT_BYTES:
            raise RateLimited(
                f"{kept} bytes are on their way to run {member.run[:8]}, which has not taken them; try again when it has"
            )
        try:
            self._index.add_pending(request, member.run, frame)
        except sqlite3.Error as error:
            raise StateError(f"it cannot be recorded ({error}), so it is not delivered; is the disk full?") from None
        if ARMED:
            reach("delivery.kept")
        self._parcels[request] = _Parcel(member.run, frame, answer, time.monotonic())
        self._send(member, request)

    def _send(self, member: Member, request: str) -> None:
        parcel = self._parcels[request]
        if member.link is not None:
            member.link.send(parcel.frame)
            if ARMED:
                reach("delivery.sent")
        elif parcel.answer is not None and _answered(parcel.frame):
            parcel.answer(wire.ok())  # it is recorded, and the run gets it when it starts, or says why not
            parcel.answer = None

    def recall(self, member: Member) -> None:
        """After a restart: what the earlier supervisor had not had confirmed."""
        for request, frame in self._index.pending(member.run):
            self._parcels[request] = _Parcel(member.run, frame, None, 0.0)

    def send_all(self, member: Member) -> None:
        """The run is there (again): send what waits for it."""
        for parcel in self._parcels.values():
            if parcel.run == member.run and member.link is not None:
                parcel.sent_at = time.monotonic()
                member.link.send(parcel.frame)

    def repeat(self) -> None:
        """Send again what has had no answer for a while."""
        for request in list(self._undropped):
            self._drop(request)
        now = time.monotonic()
        for parcel in self._parcels.values():
            member = self._members.get(parcel.run)
            if (
                member is not None
                and member.link is not None
                and member.link.pump()
                and now - parcel.sent_at > _REPEAT_AFTER_S
            ):
                parcel.sent_at = now
                member.link.send(parcel.frame)

    def confirmed(self, run: str, receipt: wire.Receipt) -> None:
        """The run has it in its outbox, or refuses it. What is another run's is not its to confirm."""
        parcel = self._parcels.get(receipt.id)
        if parcel is None or parcel.run != run:
            return
        del self._parcels[receipt.id]
        if ARMED:
            reach("delivery.confirmed")
        self._drop(receipt.id)
        if parcel.answer is not None:
            refused = receipt.code is not None
            parcel.answer(wire.refused(receipt.code or "", receipt.message or "") if refused else wire.ok())

    def _drop(self, request: str) -> None:
        """It need not be kept any more. Where the disk is full it is dropped later."""
        try:
            self._index.drop_pending(request)
            self._undropped.discard(request)
        except sqlite3.Error:
            self._undropped.add(request)

    def give_up(self, run: str) -> None:
        """The run has ended: what it did not confirm, it did not get."""
        for request in [request for request, parcel in self._parcels.items() if parcel.run == run]:
            parcel = self._parcels.pop(request)
            if parcel.answer is not None:
                parcel.answer(wire.refused("not_running", f"run {run[:8]} ended before it could take it"))
            else:
                _log.warning("run %s ended before it took what had been handed in for it", run)
        try:
            self._index.drop_pending_of(run)
        except sqlite3.Error as error:
            _log.error("run %s has ended, and what waited for it stays in the index until a restart: %s", run, error)


def _answered(frame: bytes) -> bool:
    """Whether the frame tells its run that the client was told ok before the run was there to be asked."""
    return frame[:1] == wire.INJECT and msgspec.json.decode(frame[1:], type=wire.InjectFrame).answered
