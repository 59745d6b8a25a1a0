"""The loop: clients, the event socket, timers. One thread; nothing in it waits, and every turn is bounded.

The order within a turn is what makes "from now on" exact. First it is measured how far the records go, then everybody is
accepted who has connected by then, then the ledger is told, and only then is something sent. So what was recorded after
a client's connection is after the place where its session begins.
"""

from __future__ import annotations

import heapq
import logging
import os
import resource
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sparrow_mp import wire
from sparrow_supervisor.adapters.feed import Feed, News
from sparrow_supervisor.adapters.ledger import Ledger, Reader
from sparrow_supervisor.adapters.library import Library, Pruned
from sparrow_supervisor.adapters.session import NO_ROOM, Session, utc

_log = logging.getLogger(__name__)

_MOST_CLIENTS = 1_000
_OWN_DESCRIPTORS = 64
_HOLD_S = 0.1  # how long a peer has to show that it is a browser
_TURN_S = 0.005  # how long clients are served before the loop looks around again
_ACCEPTS = 256
_LINGER_S = 1.0  # how long a client that is told an error has to take it
_SPILL_S = 2.0  # how long the bytes of a client that does not read are kept
_PAUSE_S = 0.05
_UNREADABLE_S = 1.0  # how long a record that cannot be read is left alone
_GONE_S = 2.0
_FORGET_S = 10.0
_REPORT_S = 0.5
_LOOKS_S = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0)  # when the live runs are looked at again after a first client has come
_MOMENTS = timedelta(milliseconds=50)  # no less than it takes until a client that connects is seen
_LAST_WORDS_S = 1.0
_LAST_MESSAGES_S = 0.05


class Listener(Protocol):
    """Something to accept clients from."""

    listening: socket.socket

    def refusal(self, client: socket.socket) -> str | None:
        """Why this client may not read; None where it may."""
        ...

    def is_there(self, client: socket.socket) -> bool:
        """Whether a client that closed its side still has the other one."""
        ...


class Connection:
    """A client's socket and its session."""

    __slots__ = (
        "blocked",
        "closed",
        "events",
        "fd",
        "listener",
        "looking",
        "parting",
        "queued",
        "session",
        "socket",
        "taken",
        "watched",
    )

    def __init__(self, listener: Listener, client: socket.socket, session: Session) -> None:
        self.listener = listener
        self.socket = client
        self.fd = client.fileno()
        self.session = session
        self.events = 0
        self.queued = False
        self.closed = False
        self.blocked = False  # its socket takes no more at present
        self.watched = False  # a timer looks after the blocked one
        self.parting = False  # a timer closes it
        self.looking = False  # a timer looks again at what could not be read
        self.taken = 0


class Server:
    """Serves the clients until it is told to end."""

    def __init__(
        self, listeners: list[Listener], feed: Feed, ledger: Ledger, library: Library, stall_timeout: float
    ) -> None:
        self._listeners = listeners
        self._feed = feed
        self._ledger = ledger
        self._library = library
        self._stall_timeout = stall_timeout
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._by_session: dict[Reader, Connection] = {}
        self._ready: deque[Connection] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_count = 0
        self._accepting = True
        self._missing = False  # a timer looks again at what could not be read
        # Each client may need a second descriptor for a while; the records have to be read in any case.
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = max(8, min(_MOST_CLIENTS, (descriptors - _OWN_DESCRIPTORS) // 2))
        self._report: Callable[[dict[str, int]], None] | None = None
        self._reporting = False
        self._crowd: dict[str, int] = {}
        self._ended = False
        self._finishing = 0.0
        self._deadline: float | None = None
        self._watched: dict[int, Callable[[], None]] = {}
        for listener in listeners:
            self._epoll.register(listener.listening, select.EPOLLIN)
        self._listening = {listener.listening.fileno() for listener in listeners}
        self._epoll.register(feed.fd, select.EPOLLIN)
        self._later(_FORGET_S, self._forget)

    # ── From outside ─────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, fd: int, act: Callable[[], None]) -> None:
        """Call ``act`` whenever the descriptor is readable."""
        self._watched[fd] = act
        self._epoll.register(fd, select.EPOLLIN)

    def report(self, say: Callable[[dict[str, int]], None]) -> None:
        """Say how many clients there are, by kind, and how many of them are behind: soon after that has changed."""
        self._report = say

    def _reports(self) -> None:
        """Look at it in a while, when whoever just came has been told what there is."""
        if self._report is not None and not self._reporting:
            self._reporting = True
            self._later(_REPORT_S, self._tell)

    def _tell(self) -> None:
        self._reporting = False
        crowd = {"tcp": 0, "unix": 0, "behind": 0}
        for connection in self._connections.values():
            crowd["unix" if connection.socket.family == socket.AF_UNIX else "tcp"] += 1
            crowd["behind"] += bool(connection.session.behind)
        if self._report is not None and crowd != self._crowd:
            self._crowd = crowd
            self._report(crowd)
        if crowd["behind"]:
            self._reports()

    def finish(self) -> None:
        """End cleanly: accept nobody any more, give the last events to who takes them now."""
        if self._deadline is None:
            self._finishing = time.monotonic()
            self._deadline = self._finishing + _LAST_WORDS_S
            self._pause_accepting()
            self._feed.look_at_known()

    def stop(self) -> None:
        """End at once."""
        self._ended = True

    def run(self) -> None:
        """Serve until ``finish`` or ``stop``."""
        self._feed.more = True  # there may be some already
        while not self._ended:
            self._turn()
            if self._deadline is not None and (time.monotonic() > self._deadline or self._all_said()):
                break
        for connection in list(self._connections.values()):
            self._close(connection)
        self._epoll.close()

    # ── A turn ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _turn(self) -> None:
        somebody_waits = False
        for fd, mask in self._epoll.poll(self._timeout()):
            connection = self._connections.get(fd)
            if connection is not None:
                self._serve_event(connection, mask)
            elif fd in self._listening:
                somebody_waits = True
            elif fd in self._watched:
                self._watched[fd]()
        news = self._attend() if somebody_waits and not self._feed.attends else []
        self._feed.drain()
        news += self._feed.measure() if self._feed.dirty else []
        if self._feed.missed and not self._missing:
            self._missing = True
            self._later(_PAUSE_S, self._look_for_missed)
        if self._accepting and (somebody_waits or news) and self._feed.attends:
            self._accept()
        if news:
            self._wake(self._feed.tell(news, time.monotonic()))
        self._serve_ready()
        self._run_timers()

    def _attend(self) -> list[News]:
        """The first client after a while is about to be let in. Nobody looked when it connected: so it gets what was recorded
        in the last moments too.
        """
        for after in _LOOKS_S:
            self._later(after, self._feed.look_around)
        return self._feed.attend(utc(_now() - _MOMENTS))

    def _look_for_missed(self) -> None:
        self._missing = False
        self._feed.retry()

    def _timeout(self) -> float:
        if self._ready or self._feed.more or self._feed.dirty:
            return 0.0
        wait = self._timers[0][0] - time.monotonic() if self._timers else 60.0
        if self._deadline is not None:
            wait = min(wait, _LAST_MESSAGES_S)
        return max(0.0, wait)

    def _all_said(self) -> bool:
        """Whether everybody has what there is, but for those who do not take it; what is on its way to us comes first."""
        waiting = time.monotonic() < self._finishing + _LAST_MESSAGES_S
        return not (waiting or self._ready or self._feed.more or self._feed.dirty)

    def _serve_ready(self) -> None:
        until = time.monotonic() + _TURN_S
        for _ in range(len(self._ready)):
            connection = self._ready.popleft()
            connection.queued = False
            if not connection.closed:
                self._serve(connection)
                if time.monotonic() > until:
                    break

    def _wake(self, readers: Iterable[Reader]) -> None:
        for reader in readers:
            connection = self._by_session.get(reader)
            if connection is not None:
                self._queue(connection)

    def _queue(self, connection: Connection) -> None:
        if not (connection.queued or connection.closed or connection.blocked):
            connection.queued = True
            self._ready.append(connection)

    # ── Accepting ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _accept(self) -> None:
        for listener in self._listeners:
            for _ in range(_ACCEPTS):
                try:
                    client, _ = listener.listening.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in NO_ROOM:
                        _log.error("no client can be accepted for the moment: %s", error.strerror)
                        self._pause_accepting()
                        self._later(0.5, self._resume_accepting)
                        return
                    continue  # that one was gone again already
                self._welcome(listener, client)

    def _welcome(self, listener: Listener, client: socket.socket) -> None:
        client.setblocking(False)
        try:
            refusal = listener.refusal(client)
            if refusal is None and len(self._connections) >= self._most:
                refusal = f"too many clients: {self._most} are connected already"
            if refusal is not None:
                _log.debug("a client was refused: %s", refusal)
                _turn_away(client, refusal)
                return
            self._epoll.register(client, select.EPOLLIN)
        except OSError as error:
            _log.debug("a client was lost at once: %s", error)
            client.close()
            return
        connection = Connection(listener, client, Session(self._library, self._ledger, _now))
        connection.events = select.EPOLLIN
        self._connections[connection.fd] = connection
        self._by_session[connection.session] = connection
        self._reports()
        self._later(_HOLD_S, lambda: self._release(connection))

    def _pause_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            for fd in self._listening:
                self._epoll.unregister(fd)

    def _resume_accepting(self) -> None:
        if not self._accepting and self._deadline is None:
            self._accepting = True
            for fd in self._listening:
                self._epoll.register(fd, select.EPOLLIN)

    def _release(self, connection: Connection) -> None:
        if not connection.closed and connection.session.held:
            connection.session.release()
            self._queue(connection)

    # ── One client ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _serve_event(self, connection: Connection, mask: int) -> None:
        if mask & select.EPOLLIN:
            self._read(connection)
        if mask & (select.EPOLLHUP | select.EPOLLERR) and not connection.closed:
            self._close(connection)  # both sides are shut: there is nobody to send anything to
        if mask & select.EPOLLOUT and not connection.closed:
            connection.blocked = False
            self._queue(connection)

    def _read(self, connection: Connection) -> None:
        session = connection.session
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)
            return
        if session.closing or session.refused:
            if not data:
                session.half_closed = True
        elif data:
            session.receive(data)
        else:
            session.end_of_input()
            self._look_for(connection)
        if connection.closed:
            return
        if session.refused:
            self._close(connection)
            return
        if session.failed:
            self._close_soon(connection)
        self._interest(connection)
        self._queue(connection)

    def _serve(self, connection: Connection) -> None:
        session = connection.session
        if session.held:
            return
        try:
            if session.wants_turn and (session.choosing or not session.pending):
                session.fill()
        except OSError as error:
            if error.errno in NO_ROOM:
                session.paused = True
            else:
                _log.error("a record cannot be read: %s", error)
                session.fail(f"cannot read the record: {error.strerror}; connect again")
        if session.refused or (session.pending and not self._send(connection)):
            self._close(connection)
        elif connection.blocked:
            pass
        elif session.pending:
            self._queue(connection)
        elif session.closing:
            self._part(connection)
        elif session.paused:
            self._later(_PAUSE_S, lambda: self._queue(connection))
        elif session.wants_turn:
            self._queue(connection)
        else:
            session.rest()
        self._look_again_later(connection)
        if session.failed:
            self._close_soon(connection)
        self._interest(connection)

    def _look_again_later(self, connection: Connection) -> None:
        """What could not be read for a client is tried again, and meanwhile it is served all else."""
        if not connection.session.unreadable or connection.looking:
            return
        connection.looking = True

        def look() -> None:
            connection.looking = False
            if not connection.closed:
                connection.session.look_again()
                self._queue(connection)

        self._later(_UNREADABLE_S, look)

    def _send(self, connection: Connection) -> bool:
        """Send what is pending, as far as it is taken. False where the client cannot be served any more."""
        views: list[memoryview] = []
        try:
            views = connection.session.outgoing()
            size = connection.socket.sendmsg(views)
        except BlockingIOError:
            size = 0
        except Pruned:
            _log.info("a client is closed: the line that it has half of was pruned")
            return False
        except OSError:
            return False  # it is gone
        if size:
            connection.session.sent(size)
            connection.taken += size
        if size < sum(len(view) for view in views):
            self._blocked(connection)
        return True

    def _interest(self, connection: Connection) -> None:
        """Tell the kernel what to wake us for."""
        if connection.closed:
            return
        session = connection.session
        events = 0
        if session.wants_input or (session.closing and not session.half_closed):
            events |= select.EPOLLIN
        if connection.blocked:
            events |= select.EPOLLOUT
        if events != connection.events:
            self._epoll.modify(connection.fd, events)
            connection.events = events

    # ── Clients that do not read ─────────────────────────────────────────────────────────────────────────────────────

    def _blocked(self, connection: Connection) -> None:
        connection.blocked = True
        if not connection.watched:
            connection.watched = True
            self._look_after(connection, connection.taken)

    def _look_after(self, connection: Connection, taken: int) -> None:
        """Come back to a blocked client: after a moment its bytes are dropped, after the stall timeout it is."""
        since = time.monotonic()
        limit = self._stall_timeout

        def soon() -> None:
            if connection.closed:
                return
            if connection.taken != taken:
                connection.watched = connection.blocked
                if connection.watched:
                    self._look_after(connection, connection.taken)
                return
            stalled = time.monotonic() - since
            if stalled >= limit:
                _log.info("a client is closed: it has taken nothing for %g s", stalled)
                self._close(connection)
                return
            connection.session.spill()
            self._later(max(0.01, limit - stalled), soon)

        self._later(min(_SPILL_S, limit), soon)

    # ── The end of a client ──────────────────────────────────────────────────────────────────────────────────────────

    def _part(self, connection: Connection) -> None:
        """Everything was sent: say so, and give the client a moment to read it.

        Closing with input unread would make the kernel reset the connection, and what was sent might not be read.
        """
        if connection.session.half_closed:
            self._close(connection)
            return
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        self._close_soon(connection)

    def _close_soon(self, connection: Connection) -> None:
        if not connection.parting:
            connection.parting = True
            self._later(_LINGER_S, lambda: self._close(connection))

    def _look_for(self, connection: Connection) -> None:
        """A client that closed its side first and the other one later is not announced, and may be sent nothing for days."""
        if connection.closed:
            return
        if connection.listener.is_there(connection.socket):
            self._later(_GONE_S, lambda: self._look_for(connection))
        else:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        if connection.closed:
            return
        connection.closed = True
        connection.session.close()
        del self._connections[connection.fd]
        del self._by_session[connection.session]
        self._reports()
        self._epoll.unregister(connection.fd)
        connection.socket.close()

    # ── Timers ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timer_count, act))

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _forget(self) -> None:
        self._ledger.forget(time.monotonic())
        self._reports()
        if not self._connections:
            self._feed.rest()
        self._later(_FORGET_S, self._forget)


def _turn_away(client: socket.socket, why: str) -> None:
    """One line, if it can be had at once, and out."""
    with client:
        try:
            client.send(wire.encode({"type": "Error", "message": why}) + b"\n", socket.MSG_NOSIGNAL)
            client.shutdown(socket.SHUT_WR)
            client.recv(65536)  # what is unread when a socket is closed makes the kernel reset it
        except OSError:
            pass


def _now() -> datetime:
    return datetime.now(UTC)


def pipe_ended(fd: int) -> bool:
    """Read what a pipe has. Whether it is at its end."""
    try:
        return not os.read(fd, 65536)
    except BlockingIOError:
        return False
