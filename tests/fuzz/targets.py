"""What is fuzzed: each decoder with the errors that it may raise, and with what has to hold of whatever it accepts.

A target takes bytes and a folder of its own. It raises where something is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from sparrow_mp import events, transcript, wire
from sparrow_mp.config import load_config
from sparrow_mp.errors import BadRequest, ConfigError
from sparrow_mp.run.layout import PAGE
from sparrow_mp.run.outbox import Outbox
from sparrow_supervisor.adapters.greeting import judge
from sparrow_supervisor.adapters.library import BEGIN, Library, Pruned
from sparrow_supervisor.adapters.lines import choose
from sparrow_supervisor.link import ProtocolBroken, check
from sparrow_supervisor.reports import exit_report, reaped_status

RUN = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"
Target = Callable[[bytes, Path], None]


def event(data: bytes, _: Path) -> None:
    """One line, as an event and as a header."""
    try:
        found = events.decode(data)
    except events.EventError:
        return
    again = events.decode(events.encode(found))
    assert events.encode(again) == events.encode(found)
    if not isinstance(found, events.Unknown):  # what one of those says of itself is looked at where it is recorded
        assert events.decode_header(events.encode(found)).seq == found.seq


def run_says(data: bytes, _: Path) -> None:
    """What a run sends: whatever is recorded of it is numbered, its own, one event a line."""
    try:
        groups = check(data, RUN, 1, "2026-11-22T12:00:00.123456Z")
    except ProtocolBroken as broken:
        assert 0 <= broken.good <= data.count(b"\n")  # noqa: PT017  what it says, not that it was raised
        return
    seq = 0
    for group in groups:
        lines = group.lines.split(b"\n")
        assert lines.pop() == b""
        assert len(lines) == len(group.events)
        for line in lines:
            seq += 1
            header = events.decode_header(line)
            assert (header.run, header.seq, header.type) == (RUN, seq, group.kind)
            assert b"\r" not in line


def frame(data: bytes, _: Path) -> None:
    """The head of a frame of events."""
    try:
        first, lines = wire.split_events(wire.EVENTS + data)
    except BadRequest:
        return
    assert first >= 0
    assert lines.endswith(b"\n")


def request(data: bytes, _: Path) -> None:
    """A request on the control socket."""
    try:
        found = wire.decode_request(data)
    except BadRequest:
        return
    assert wire.decode_request(wire.encode(found)) == found


def subscription(data: bytes, _: Path) -> None:
    """An NDJSON client's line, and what its first bytes are taken for."""
    assert judge(data) in ("wait", "request", "http", "bad")
    try:
        wire.parse_subscription(data)
    except BadRequest:
        return
    assert judge(data.lstrip()) == "request"


def public(data: bytes, _: Path) -> None:
    """What a client gets of lines: no event of a type that is not public, however it is written."""
    for line in choose(data, None).split(b"\n"):
        try:
            header = events.decode_header(line)
        except msgspec.DecodeError:
            continue
        assert events.is_public_type(header.type)


def outbox(data: bytes, folder: Path) -> None:
    """The file that a run that has ended leaves."""
    path = folder / "outbox"
    path.write_bytes(b"SPRWOUT1" + data[:88].ljust(PAGE - 8, b"\0") + data[88:])
    try:
        found = Outbox(path, RUN)
    except ValueError:
        return
    try:
        for line in found.unrecorded(0):
            assert b"\n" not in line
    finally:
        found.close()


def record(data: bytes, folder: Path) -> None:
    """A record, damaged anywhere, as it is read for many clients."""
    (folder / RUN).mkdir(exist_ok=True)
    (folder / RUN / transcript.EVENTS).write_bytes(data)
    library = Library(folder)
    spot = BEGIN
    try:
        while (chunk := library.read(RUN, spot, None, 200)) is not None:
            assert (chunk.start.seq, chunk.end.seq > spot.seq) == (spot.seq, True)
            spot = chunk.end
        library.seek_time(RUN, "2026-11-22T12:00:00.123456Z")
    except Pruned:
        pass
    library.end(RUN)
    library.last_time(RUN)


def report(data: bytes, folder: Path) -> None:
    """What a run's folder says of its end."""
    (folder / "exit.json").write_bytes(data)
    (folder / "reaped").write_bytes(data)
    exit_report(folder)
    reaped_status(folder)


def config(data: bytes, folder: Path) -> None:
    """The configuration file."""
    (folder / "config.toml").write_bytes(data)
    try:
        load_config(folder / "config.toml", {})
    except ConfigError:
        pass


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (event, run_says, frame, request, subscription, public, outbox, record, report, config)
}
