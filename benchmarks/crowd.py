"""Many runs that emit at once, and what a subscriber gets of it: all of it, or it is no figure."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.daemon import Sparrow
from benchmarks.engines import TEXT
from benchmarks.machine import PLACE
from benchmarks.rows import Failed
from sparrow_mp import transcript
from sparrow_mp.client import Run


class Missed(Failed):
    """A message did not reach the subscriber, as ZeroMQ's PUB may do to one that lags; the transcript has it."""


class _Line(msgspec.Struct):
    type: str
    seq: int


_DECODER = msgspec.json.Decoder(_Line)
_BEFORE = 3
"""A run's events before its messages: RunStarted, and two that say how far it is."""


def emitted_whole(
    bench: Sparrow,
    runs: int,
    each: int,
    *,
    single: bool = False,
    text: int = len(TEXT),
    missed: list[str] | None = None,
) -> float:
    """As ``emitted``; where the subscriber missed something that is added to ``missed`` and tried again, twice at most."""
    for _ in range(2):
        try:
            return emitted(bench, runs, each, single=single, text=text)
        except Missed as reason:
            if missed is not None:
                missed.append(str(reason))
    return emitted(bench, runs, each, single=single, text=text)


def emitted(bench: Sparrow, runs: int, each: int, *, single: bool = False, text: int = len(TEXT)) -> float:
    """Events a second of so many runs together, each with a text of so many letters, from before the first is emitted until the last is received.

    Raises Failed where one is missing in a transcript, Missed where the subscriber alone has not got it.
    """
    with _waiting(bench, runs, each, single=single, text=text) as (started, gate):
        start = time.perf_counter()
        with gate.open("wb"):
            got, ended = _heard(bench, started, runs * each)
    _verify(bench, started, got, each)
    return runs * each / (ended - start)


def recorded(bench: Sparrow, runs: int, each: int, *, single: bool = False) -> float:
    """As ``emitted`` with nobody who listens: until the last event is in the record, seen to a twentieth of a second."""
    with _waiting(bench, runs, each, single=single, text=len(TEXT)) as (started, gate):
        ids = {run.id for run in started}
        bench.hear_only(*(f"{run.id}/RunFinished" for run in started))
        start = seen = time.perf_counter()
        with gate.open("wb"):
            while ids:
                time.sleep(0.05)
                seen = time.perf_counter()
                ids -= {record.run for record in bench.client.list(all=True) if record.events >= each + _BEFORE}
        ended = {f"{run.id}/RunFinished".encode() for run in started}
        _gather(bench, ended)
        bench.hear_only("")
    _check(bench, started, each)
    return runs * each / (seen - start)


@contextmanager
def _waiting(bench: Sparrow, runs: int, each: int, *, single: bool, text: int) -> Iterator[tuple[list[Run], Path]]:
    """Runs that all wait for somebody to open a pipe for writing."""
    with tempfile.TemporaryDirectory(prefix="spb-", dir=PLACE) as folder:
        gate = Path(folder) / "gate"
        os.mkfifo(gate)
        settings: dict[str, object] = {"events": each, "gate": gate, "text": text}
        if single:
            settings["single"] = 1
        started = [bench.start("flood_at_once", **settings) for _ in range(runs)]
        _gather(bench, {f"{run.id}/Custom".encode() for run in started})
        time.sleep(0.05)  # until each has gone on from emitting to opening the pipe
        yield started, gate


def _gather(bench: Sparrow, topics: set[bytes]) -> None:
    while topics:
        topics.discard(bench.hear()[0])


def _heard(bench: Sparrow, runs: list[Run], count: int) -> tuple[dict[bytes, list[bytes]], float]:
    """The payloads of each run's messages, and when the last came. It hears all of them to their ends."""
    messages: dict[bytes, list[bytes]] = {f"{run.id}/Message".encode(): [] for run in runs}
    ends = {f"{run.id}/RunFinished".encode() for run in runs}
    received, last = 0, 0.0
    while ends:
        try:
            topic, payload = bench.hear()
        except Failed as silence:
            raise _why(bench, silence) from None
        if (payloads := messages.get(topic)) is not None:
            payloads.append(payload)
            received += payload.count(b"\n")
            if received == count:
                last = time.perf_counter()
        elif topic in ends:
            if b'"status":"completed"' not in payload:
                raise Failed(f"a run did not go well: {payload.decode(errors='replace')}")
            ends.discard(topic)
    return messages, last


def _why(bench: Sparrow, silence: Failed) -> Failed:
    """Nothing more comes: do runs hang, or did the subscriber miss an end?"""
    live = len(bench.client.list())
    return Failed(f"{silence}, and {live} runs have not ended") if live else Missed(str(silence))


def _verify(bench: Sparrow, runs: list[Run], got: dict[bytes, list[bytes]], each: int) -> None:
    """Each message once and in order, first in the transcripts, then at the subscriber."""
    messages = _check(bench, runs, each)
    missed = 0
    for run in runs:
        heard = b"".join(got[f"{run.id}/Message".encode()]).splitlines()
        missed += [_DECODER.decode(line).seq for line in heard] != messages[run.id]
    if missed:
        raise Missed(f"the subscriber missed events of {missed} runs, all of which are recorded")


def _check(bench: Sparrow, runs: list[Run], each: int) -> dict[str, list[int]]:
    """The numbers of each run's messages, of which the transcripts have each once and in order. Raises Failed."""
    messages: dict[str, list[int]] = {}
    for run in runs:
        lines = list(transcript.iter_lines(bench.client.places.transcript(run.id)))
        events = [_DECODER.decode(line) for line in lines]
        if [event.seq for event in events] != list(range(1, len(lines) + 1)):
            raise Failed("a transcript has a hole or a repeat")
        messages[run.id] = [event.seq for event in events if event.type == "Message"]
        if len(messages[run.id]) != each:
            raise Failed(f"{each} messages were emitted by a run and {len(messages[run.id])} are recorded")
    return messages
