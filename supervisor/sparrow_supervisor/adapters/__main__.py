"""The adapters' process: ``python -P -m sparrow_supervisor.adapters JSON``, started by the supervisor alone.

The JSON says the places and the settings. Standard input is a pipe whose end means that the supervisor is gone; one line
of JSON goes to standard output once clients can connect, and one whenever their number has changed; standard error is the log. SIGTERM is a clean end.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import setproctitle
import zmq

from sparrow_mp.errors import StateError
from sparrow_mp.paths import Places
from sparrow_supervisor.adapters.feed import Feed
from sparrow_supervisor.adapters.ledger import Ledger
from sparrow_supervisor.adapters.library import Library
from sparrow_supervisor.adapters.server import Listener, Server, pipe_ended
from sparrow_supervisor.adapters.session import utc
from sparrow_supervisor.adapters.tcp import TcpListener
from sparrow_supervisor.adapters.unix import UnixListener

_log = logging.getLogger(__name__)

_DESCRIPTORS = 16_384


class Settings(msgspec.Struct):
    """What the supervisor tells its adapters. ``tcp`` empty: no TCP."""

    state: str
    runtime: str
    config: str
    tcp: str
    unix: str
    stall_timeout: float


class Ready(msgspec.Struct):
    """What the adapters tell their supervisor."""

    tcp: str | None
    unix: str | None
    problems: list[str]


def main(settings: Settings) -> int:
    """Serve until the supervisor says so or is gone."""
    places = Places(Path(settings.state), Path(settings.runtime), Path(settings.config))
    _raise_limit()
    problems: list[str] = []
    unix = _open_unix(Path(settings.unix), places, problems)
    tcp = _open_tcp(settings.tcp, places, problems)
    listeners: list[Listener] = [listener for listener in (unix, tcp) if listener is not None]
    # First subscribe, then look what there is, then let clients in: nothing falls between.
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
    ledger = Ledger()
    library = Library(places.transcripts)
    feed = Feed(context, places, ledger, library, utc(datetime.now(UTC)))
    feed.begin()
    server = Server(listeners, feed, ledger, library, settings.stall_timeout)
    orphaned = False

    def supervisor_spoke() -> None:
        nonlocal orphaned
        if pipe_ended(0):
            orphaned = True
            server.stop()

    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def signalled() -> None:
        if not pipe_ended(wake_read):
            server.finish()

    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)  # the wake-up tells the loop
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # a terminal's; the supervisor decides
    os.set_blocking(0, False)
    server.watch(0, supervisor_spoke)
    server.watch(wake_read, signalled)
    _say(Ready(tcp.address if tcp else None, unix.address if unix else None, problems))
    os.set_blocking(1, False)
    server.report(_report)
    server.run()
    if tcp is not None:
        tcp.close()
    if unix is not None:
        if orphaned:
            unix.abandon()
        else:
            unix.close()
    feed.close()
    context.term()
    return 0


def _open_unix(path: Path, places: Places, problems: list[str]) -> UnixListener | None:
    try:
        return UnixListener(path, guarded=path.parent == places.state)
    except StateError as error:
        problems.append(error.message)
        return None


def _open_tcp(address: str, places: Places, problems: list[str]) -> TcpListener | None:
    if not address:
        return None
    try:
        return TcpListener(address, places.config)
    except StateError as error:
        problems.append(error.message)
        return None


def _say(ready: Ready) -> None:
    """The one line. The pipe stays open: its end is how the supervisor learns of ours."""
    try:
        os.write(1, msgspec.json.encode(ready) + b"\n")
    except BrokenPipeError:
        pass  # the supervisor is gone; standard input tells


def _report(clients: dict[str, int]) -> None:
    """How many clients there are. If the supervisor does not listen just now, it is told the next time."""
    try:
        os.write(1, msgspec.json.encode({"clients": clients}) + b"\n")
    except (BrokenPipeError, BlockingIOError):
        pass


def _raise_limit() -> None:
    """A descriptor a client, and often there are 1,024 by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s adapters: %(levelname)s: %(message)s"
    )
    setproctitle.setproctitle("sparrow-adapters")
    try:
        given = msgspec.json.decode(sys.argv[1] if len(sys.argv) == 2 else "", type=Settings)
    except msgspec.DecodeError as error:
        sys.exit(f"this is started by the sparrow supervisor, with its settings as JSON: {error}")
    sys.exit(main(given))
