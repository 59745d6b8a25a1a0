"""Injections and approvals on their way to a run: in the index until the run says that they are in its outbox.

They are sent again after a reconnection and after a while without an answer; the monitor knows what it has had.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass

from sparrow_mp import wire
from sparrow_supervisor.control import Answer
from sparrow_supervisor.index import Index
from sparrow_supervisor.member import Member

_REPEAT_AFTER_S = 1.0


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
        self._count = itertools.count()

    def new_id(self) -> str:
        """An id that sorts by time, so that what waits is sent in its order."""
        return f"{time.time_ns():020d}-{next(self._count):06d}"

    def post(self, member: Member, request: str, frame: bytes, answer: Answer) -> None:
        """Keep a frame until it is confirmed, and send it if the run is there."""
        self._index.add_pending(request, member.run, frame)
        self._parcels[request] = _Parcel(member.run, frame, answer, time.monotonic())
        if member.link is not None:
            member.link.send(frame)
        else:
            answer(wire.ok())  # it is recorded, and the run gets it when it starts
            self._parcels[request].answer = None

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

    def confirmed(self, receipt: wire.Receipt) -> None:
        """The run has it in its outbox, or refuses it."""
        parcel = self._parcels.pop(receipt.id, None)
        if parcel is None:
            return
        self._index.drop_pending(receipt.id)
        if parcel.answer is not None:
            refused = receipt.code is not None
            parcel.answer(wire.refused(receipt.code or "", receipt.message or "") if refused else wire.ok())

    def give_up(self, run: str) -> None:
        """The run has ended: what it did not confirm, it did not get."""
        for request in [request for request, parcel in self._parcels.items() if parcel.run == run]:
            parcel = self._parcels.pop(request)
            if parcel.answer is not None:
                parcel.answer(wire.refused("not_running", f"run {run[:8]} ended before it could take it"))
        self._index.drop_pending_of(run)
