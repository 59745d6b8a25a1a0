"""What every run does first, done once before: in the zygote, so that its forks find it done.

A fork shares its parent's memory until it writes to it. What a run would set up anew each time (the tables of the decoders,
the bytecode that the interpreter specialises once it is warm, what is imported on first use) is set up here, and then the
collector is told to leave all of it alone: a collection in a fork would write to, and so copy, every page of it.
"""

from __future__ import annotations

import gc
import importlib
import logging
import tempfile
from pathlib import Path

import msgspec

from sparrow_mp import wire
from sparrow_mp.events import Message, Output, RunStarted, decode
from sparrow_mp.run import engines
from sparrow_mp.run.outbox import Outbox
from sparrow_mp.run.output import LineSplitter
from sparrow_mp.run.tree import descendants

_log = logging.getLogger(__name__)

_TIMES = 20
"""Enough for the interpreter to take the code for hot."""


def rehearse() -> None:
    """Do once, without any effect, what a run does when it begins."""
    for value in engines.BUILT_IN.values():
        importlib.import_module(value.partition(":")[0])
    try:
        with tempfile.TemporaryDirectory(prefix="sparrow-") as folder:
            for number in range(_TIMES):
                _rehearse_once(Path(folder) / str(number))
    except OSError as error:
        _log.warning("no rehearsal (%s): runs begin a little slower", error)
    importlib.invalidate_caches()  # so that no fork relies on what the folders held by now
    gc.collect()
    gc.freeze()


def _rehearse_once(folder: Path) -> None:
    folder.mkdir()
    spec = wire.RunSpec(run="", task="", engine="shell", agent="", endpoint="", cwd="/", env={"A": "b"})
    msgspec.json.decode(wire.encode(spec), type=wire.RunSpec)
    opening = RunStarted(task="", agent="")
    Outbox.create(folder / "outbox", 1 << 20)
    outbox = Outbox(folder / "outbox", "", opening)
    outbox.begin()
    splitter = LineSplitter()
    outbox.append([Output(stream="stdout", text=text, partial=more) for text, more in splitter.feed(b"a\nb\n")])
    outbox.append([Message(role="assistant", text="")], wait=False)
    for line in outbox.read(outbox.acked).splitlines():
        decode(line)
    outbox.acknowledge(outbox.state.end)
    outbox.close()
    wire.events_frame(1, b"\n")
    wire.frame(wire.HELLO, wire.Hello(protocol=wire.PROTOCOL, run="", last=0))
    wire.frame(wire.RECEIPT, wire.Receipt(id=""))
    wire.encode(wire.ExitReport())
    descendants(0)
