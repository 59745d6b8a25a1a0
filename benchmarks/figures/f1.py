"""F1: events a second of one run, checked, recorded, published, received by a SUB in another process."""

from __future__ import annotations

import time

import msgspec

from benchmarks.daemon import Sparrow, sparrow
from benchmarks.relay import Relay, relay
from benchmarks.rows import Failed, Goal, Plan, Row
from sparrow_mp import transcript
from sparrow_mp.events import Message, decode, decode_lines


class Missed(Failed):
    """A message did not reach the subscriber, as ZeroMQ's PUB may do to one that lags; the transcript has it."""


TITLE = "throughput of one run"
_AGAINST = "bare pyzmq PAIR → PUB → SUB, one message (topic, event) an event, nothing checked, nothing recorded"
_PLAIN = "the same relay without topics: one frame an event"


def measure(plan: Plan) -> list[Row]:
    """Bare relay, emit_many and emit by turns: one baseline for both rows."""
    many = Row("F1", "`emit_many()` of 100", "events/s", _AGAINST, goal=Goal(3, "at least"))
    single = Row("F1", "`emit()` one by one", "events/s", _AGAINST, goal=Goal(2, "at least"))
    plain = Row("F1", "`emit_many()` of 100", "events/s", _PLAIN, goal_text="none: for comparison")
    missed: list[str] = []
    for _ in range(plan.rounds):
        # Never at the same time as sparrow: its processes would only wait, but they would be there.
        with relay() as bare:
            sample = _relayed(bare, plan.size(150_000, 30_000))
        with relay(plain=True) as bare:
            plain.baseline.append(_relayed(bare, plan.size(300_000, 100_000)))
        many.baseline.append(sample)
        single.baseline.append(sample)
        with sparrow() as bench:
            many.ours.append(_received(bench, "flood_many", plan.size(300_000, 50_000), missed))
            single.ours.append(_received(bench, "flood", plan.size(150_000, 30_000), missed))
    plain.ours = many.ours
    many.note = "each event was found once in the transcript and once at the subscriber"
    if missed:
        many.note += (
            f"; {len(missed)} floods were repeated, since the subscriber lagged and a PUB socket then drops messages"
        )
    return [many, single, plain]


def _received(bench: Sparrow, function: str, count: int, missed: list[str]) -> float:
    """A flood of which the subscriber got all. One that it did not is added to ``missed`` and tried again, twice."""
    for _ in range(2):
        try:
            return flooded(bench, function, count)
        except Missed as reason:
            missed.append(str(reason))
    return flooded(bench, function, count)


def _relayed(bare: Relay, count: int) -> float:
    bare.flood(count // 10)
    return bare.flood(count)


def flooded(bench: Sparrow, function: str, count: int) -> float:
    """Events a second, from before the first emit until the last is received. Raises Failed where one is missing."""
    run = bench.start(function, events=count)
    begin = decode(bench.hear_topic(f"{run.id}/Custom"))
    topic = f"{run.id}/Message".encode()
    last = f"{run.id}/RunFinished".encode()
    payloads: list[bytes] = []
    received = 0
    while received < count:
        got, payload = bench.hear()
        if got == topic:
            payloads.append(payload)
            received += payload.count(b"\n")
        elif got == last:
            raise _missed(bench, run.id, received, count)
    ended = time.monotonic_ns()
    bench.finish(run)
    _verify(bench, run.id, b"".join(payloads), count)
    began = msgspec.to_builtins(begin)["data"]["at"]
    return count / ((ended - began) / 1e9)


def _missed(bench: Sparrow, run: str, received: int, count: int) -> Failed:
    """The run has ended and the subscriber has less than it should: whose fault is it?"""
    recorded = sum(b'"type":"Message"' in line for line in transcript.iter_lines(bench.client.places.transcript(run)))
    if recorded != count:
        return Failed(f"{count} messages were emitted and {recorded} are recorded")
    return Missed(f"the subscriber got {received} of {count} messages, all of which are recorded")


def _verify(bench: Sparrow, run: str, received: bytes, count: int) -> None:
    """Each message once, in order: in the transcript, and at the subscriber."""
    lines = list(transcript.iter_lines(bench.client.places.transcript(run)))
    recorded = decode_lines(b"\n".join(lines))
    if [event.seq for event in recorded] != list(range(1, len(lines) + 1)):
        raise Failed("the transcript has a hole or a repeat")
    messages = [event.seq for event in recorded if isinstance(event, Message)]
    if len(messages) != count:
        raise Failed(f"{count} messages were emitted and {len(messages)} are recorded")
    if [event.seq for event in decode_lines(received)] != messages:
        raise Failed("the subscriber missed an event, or got one twice")
    size = len(lines[-2]) + 1
    if not 195 <= size <= 205:
        raise Failed(f"an event has {size} bytes and should have 200")
