"""What the supervisor hands a run: injected messages and answered approvals, each recorded first, handed over once, confirmed."""

from __future__ import annotations

from collections.abc import Callable

from sparrow_mp import wire
from sparrow_mp.events import AnyEvent, ApprovalResolved, Error, Message
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.run.channel import Channel
from sparrow_mp.run.stdio import Stdio

_MOST_UNREAD_BYTES = 2 << 20
"""What a run may have been handed and not read, past which no more is taken: it has to be kept in memory until then. More
than the supervisor answers for before a run is there (``Delivery``), so that nothing is refused which was answered ok.
"""

_REMEMBERED = 10_000
"""How many orders are known by their ids after they were recorded, in case that they are asked for again."""


class Orders:
    """Takes each order once, however often it comes. ``record(event, then)`` calls ``then`` when the outbox has the event."""

    def __init__(
        self,
        channel: Channel,
        stdio: Stdio,
        receipt: Callable[[wire.Receipt], None],
        record: Callable[[AnyEvent, Callable[[], None]], None],
    ) -> None:
        self._channel = channel
        self._stdio = stdio
        self._receipt = receipt
        self._record = record
        self._seen: dict[str, None] = {}
        self._underway: set[str] = set()
        self._held: dict[str, wire.InjectFrame] = {}  # by id: what has no answer is sent again each second
        self._engine_began = False
        self._asks: list[str] = []

    def begin(self) -> None:
        """The engine is known to run: hand over what was injected before."""
        self._engine_began = True
        held, self._held = self._held, {}
        for asked in held.values():
            self.inject(asked)

    def latest_taken(self, limit: int) -> list[str]:
        """The ids of the last orders that were recorded: their receipts may be lost."""
        return list(self._seen)[-limit:]

    def inject(self, asked: wire.InjectFrame) -> None:
        """Record the message, then hand it over, then say so."""
        if not self._engine_began:
            self._held[asked.id] = asked  # whether it reads lines or messages is not known yet
            return
        if self._repeated(asked.id):
            return
        is_command = self._takes_lines
        if (is_command or asked.data is not None or asked.eof) and not self._stdio.takes_input:
            reason = "the run takes no input: its standard input is closed (--stdin null, or --eof was given)"
            self._refuse(asked, "not_running", reason)
            return
        unread = max(self._stdio.unread, self._channel.unread)
        if unread >= _MOST_UNREAD_BYTES and not asked.eof:
            reason = f"the run has {unread} bytes of input that it has not read; try again when it has read some"
            self._refuse(asked, "rate_limited", reason)
            return
        self._underway.add(asked.id)

        def delivered() -> None:
            if ARMED:
                reach("orders.recorded")
            data = asked.data or b""
            if asked.text is not None and is_command:
                data += asked.text.encode() + b"\n"
            elif asked.text is not None:
                self._channel.post(message=asked.text, now=asked.now)
            self._stdio.hand_over(data, ends=asked.eof)
            if ARMED:
                reach("orders.handed")
            self._taken(asked.id)

        text = asked.text if asked.data is None else asked.data.decode("utf-8", "replace")
        if text is None:
            delivered()
        else:
            self._record(Message(role="user", text=text), delivered)

    def _refuse(self, asked: wire.InjectFrame, code: str, reason: str) -> None:
        """Say that it is not taken: to who asked, or in the transcript where they have gone, told that it would be."""
        if not asked.answered:
            self._receipt(wire.Receipt(id=asked.id, code=code, message=reason))
            return
        self._underway.add(asked.id)
        lost = f"an injected message was not delivered: {reason}"
        self._record(Error(message=lost), lambda: self._taken(asked.id))

    @property
    def _takes_lines(self) -> bool:
        """Whether the engine is a program, which reads its standard input, and no Python engine, which reads messages."""
        return self._channel.closed

    def ask(self, request: str) -> None:
        """The engine asks for an approval."""
        self._asks.append(request)

    def withdraw(self, request: str, *, in_time: bool) -> None:
        """The engine waits for that approval no longer: its time is over, or (``in_time``) it has other things to do."""
        if request in self._asks:
            by, reason = ("run", "it asks no longer") if in_time else ("timeout", "nobody answered in time")
            resolved = ApprovalResolved(id=request, decision="Deny", by=by, reason=reason)
            self._resolve(resolved, lambda: None)

    def approve(self, asked: wire.ApproveFrame) -> None:
        """Record the decision, then hand it over, then say so."""
        if self._repeated(asked.id):
            return
        request = asked.request or (self._asks[0] if self._asks else None)
        if request is None or request not in self._asks:
            message = f"no approval {request} is asked for" if request else "no approval is asked for"
            self._receipt(wire.Receipt(id=asked.id, code="bad_request", message=message))
            return
        self._underway.add(asked.id)
        resolved = ApprovalResolved(id=request, decision=asked.decision, by="user")
        self._resolve(resolved, lambda: self._taken(asked.id))

    def _resolve(self, resolved: ApprovalResolved, then: Callable[[], None]) -> None:
        self._asks.remove(resolved.id)

        def delivered() -> None:
            self._channel.post(decision=resolved.decision, id=resolved.id)
            then()

        self._record(resolved, delivered)

    def _taken(self, request: str) -> None:
        """It is in the outbox: say so."""
        self._underway.discard(request)
        self._seen[request] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]  # the oldest: nobody asks for it again
        self._receipt(wire.Receipt(id=request))

    def _repeated(self, request: str) -> bool:
        """Whether this was dealt with already: then the receipt was lost, and is sent again. Or it is being dealt with."""
        if request in self._seen:
            self._receipt(wire.Receipt(id=request))
        return request in self._seen or request in self._underway
