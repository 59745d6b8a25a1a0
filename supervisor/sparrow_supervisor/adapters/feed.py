"""What the supervisor publishes, taken for no more than a hint: something of this run is new, go and read.

What a client is sent comes from the records, so a lost, late or repeated message can neither make a hole nor a repeat.
A message that was lost is made good by the next one of its run, or by ``heads``, which comes about once a second. While there
is no client, ``heads`` is all that is subscribed to: so a run's events cost nothing here that nobody gets.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import zmq

from sparrow_mp.events import decode_header
from sparrow_mp.paths import Places
from sparrow_supervisor.adapters.ledger import Ledger, Reader
from sparrow_supervisor.adapters.library import BEGIN, Library, Pruned, Spot

_log = logging.getLogger(__name__)

_HIGH_WATER = 4_000
_AT_ONCE = 500  # messages a turn, so that a flood of them does not keep clients waiting
_RUNS_AT_ONCE = 200


class Heads(msgspec.Struct):
    """The payload of the topic ``heads``."""

    runs: dict[str, int]


class News(NamedTuple):
    """A run whose record was found longer than the ledger knows; ``start`` is given for a run that it does not know."""

    run: str
    end: Spot
    ended: bool
    start: Spot | None


_decode_heads = msgspec.json.Decoder(Heads).decode


class Feed:
    """The subscription to the event socket, and the ends of the records it speaks of."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], places: Places, ledger: Ledger, library: Library, since: str
    ) -> None:
        """``since`` is the present time: what runs say from now on is new. It rests. Raises zmq.ZMQError."""
        self._places = places
        self._ledger = ledger
        self._library = library
        self._since = since
        self._dirty: dict[str, int] = {}  # the runs to look at; the first seq that was heard of, 0: none in particular
        self.missed: dict[str, int] = {}
        """The runs whose records could not be read just now."""
        self.attends = False
        """Whether it hears of everything at once, and not of each run once a second."""
        self.more = False
        """Whether there are messages that nothing will announce: the descriptor tells of each once only."""
        self._socket = context.socket(zmq.SUB)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.RCVHWM, _HIGH_WATER)
        self._socket.set(zmq.RECONNECT_IVL, 20)
        self._socket.set(zmq.RECONNECT_IVL_MAX, 500)
        self._socket.subscribe(b"heads")
        self._socket.connect(places.events)
        fd = self._socket.get(zmq.FD)
        assert isinstance(fd, int)
        self.fd = fd

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    @property
    def dirty(self) -> bool:
        """Whether there are records to look at."""
        return bool(self._dirty)

    def begin(self) -> None:
        """Enter the runs that live already, as far as they have got. To be called once, before there is any client."""
        for run in self._live():
            try:
                found = self._library.end(run)
            except OSError as error:  # a link in its place, say: the others are served all the same
                self._library.tell(run, f"its record cannot be read: {error.strerror}")
                continue
            if found is not None:
                self._ledger.appear(run, *found, time.monotonic())

    def attend(self, since: str) -> list[News]:
        """Hear of everything from now on, and say what is news since ``since``, a moment ago: the ledger knows where the runs
        were then. As the subscription takes a moment to be in force, all are to be looked at again soon (``look_around``).
        """
        self.attends = True
        self._since = since
        self._socket.subscribe(b"")
        self.look_around()
        news: list[News] = []
        while self._dirty:
            news += self.measure()
        for run, end, _, _ in news:
            self._enter(run, self._place_at(run, since) or end)
        return news

    def _place_at(self, run: str, moment: str) -> Spot | None:
        try:
            return self._library.seek_time(run, moment)
        except (Pruned, OSError):
            return None

    def _enter(self, run: str, spot: Spot) -> None:
        """It is here that a client that comes now finds the run."""
        if run in self._ledger.tails:
            self._ledger.grow(run, spot, ended=False, now=time.monotonic())
        else:
            self._ledger.appear(run, spot, ended=False, now=time.monotonic())

    def rest(self) -> None:
        """There is no client: hear no more than is needed to know where the runs are when one comes."""
        if self.attends:
            self.attends = False
            self._socket.unsubscribe(b"")

    def look_around(self) -> None:
        """Look at all live runs."""
        for run in self._live():
            self._dirty.setdefault(run, 0)

    def look_at_known(self) -> None:
        """Look at every run that has not ended: a last time before the end."""
        for run, tail in self._ledger.tails.items():
            if not tail.ended:
                self._dirty.setdefault(run, 0)

    def drain(self) -> None:
        """Take the messages that are there, or as many of them as one turn may take."""
        tails = self._ledger.tails
        self.more = True
        for _ in range(_AT_ONCE):
            try:
                topic, payload = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                self.more = False
                return
            except ValueError:
                _log.warning("a message on the event socket is not of two frames; it is left out")
                continue
            run = topic.partition(b"/")[0].decode("utf-8", "replace")
            if topic == b"heads":
                self._heads(payload)
            elif run not in self._dirty:
                self._dirty[run] = 0 if run in tails else _first_seq(payload)

    def retry(self) -> None:
        """Look again at the records that could not be read."""
        missed, self.missed = self.missed, {}
        for run, heard in missed.items():
            self._dirty.setdefault(run, heard)

    def _heads(self, payload: bytes) -> None:
        try:
            runs = _decode_heads(payload).runs
        except msgspec.DecodeError as error:
            _log.warning("a message of heads cannot be read: %s", error)
            return
        for run, seq in runs.items():
            tail = self._ledger.tails.get(run)
            if tail is None or tail.spot.seq < seq:
                self._dirty.setdefault(run, 0)

    def measure(self) -> list[News]:
        """How far the records go that something was heard of. The ledger does not know it yet: see ``Server``."""
        news = []
        for run in list(self._dirty)[:_RUNS_AT_ONCE]:
            heard = self._dirty.pop(run)
            tail = self._ledger.tails.get(run)
            if not self._library.has(run):
                continue
            try:
                found = self._library.end(run, tail.spot if tail is not None else None)
            except OSError as error:
                self._library.tell(run, f"its record cannot be read: {error.strerror}")
                self.missed[run] = heard
                continue
            if found is not None:
                news.append(News(run, *found, None if tail is not None else self._start_of(run, heard, found[0])))
        return news

    def tell(self, news: Iterable[News], now: float) -> list[Reader]:
        """Enter it into the ledger. Who was idle and is to be served now."""
        woken: list[Reader] = []
        for run, end, ended, start in news:
            if start is not None and run not in self._ledger.tails:
                woken += self._ledger.appear(run, start, ended and start.seq >= end.seq, now)
            woken += self._ledger.grow(run, end, ended, now)
        return woken

    def _start_of(self, run: str, heard: int, end: Spot) -> Spot:
        """From where a run is new that was not known: from its first event, unless it is older than this process."""
        if heard == 1 or self._library.time_of(run, 1) >= self._since:
            return BEGIN
        # An old one that was taken for ended: somebody told its end after all.
        return Spot(heard - 1) if heard else end

    def _live(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._places.runs) if self._library.has(name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            _log.error("%s cannot be read: %s", self._places.runs, error.strerror)
            return []


def _first_seq(payload: bytes) -> int:
    try:
        return decode_header(payload.partition(b"\n")[0]).seq
    except msgspec.DecodeError:
        return 0
