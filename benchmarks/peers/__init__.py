"""The peers that a user would pick instead: how each is had, started and measured on this machine, in the same run."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import PLACE
from benchmarks.peers.circus import Circus
from benchmarks.peers.peer import Peer, Printer, Unfit, Work
from benchmarks.peers.spooler import Spooler
from benchmarks.peers.supervisord import Supervisord
from benchmarks.peers.systemd import Systemd
from benchmarks.peers.tmux import Tmux
from benchmarks.rows import Failed, Goal, Plan, Row

KINDS: Sequence[type[Peer]] = (Supervisord, Circus, Spooler, Tmux, Systemd)
_LINE = b"the quick brown fox jumps over the lazy dog, and %08d\n"
_LOOP = """
number=10000000
while [ $number -lt {end} ]; do
    echo "the quick brown fox jumps over the lazy dog, and $number"
    number=$((number + 1))
done
"""


@dataclass
class Present:
    """Those that could be started, and why the others could not."""

    peers: list[Peer] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    printers: dict[str, Printer] = field(default_factory=dict)


@contextmanager
def present(
    plan: Plan, kinds: Sequence[type[Peer]] = KINDS, *, lines: dict[str, int] | None = None
) -> Iterator[Present]:
    """Peers that run, each in a folder of its own, with nothing left of them afterwards. ``lines``: what printers print."""
    top = Path(tempfile.mkdtemp(prefix="spb-", dir=PLACE))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, top, ignore_errors=True)
        here = Present(printers={name: _printer(top, name, count) for name, count in (lines or {}).items()})
        for number, kind in enumerate(kinds):
            folder = top / str(number)
            folder.mkdir()
            try:
                peer = kind(Work(folder, plan.size(100, 30), here.printers))
            except (Unfit, Failed, OSError) as reason:
                here.missing[kind.name] = str(reason)
                continue
            stack.callback(_close, peer)
            here.peers.append(peer)
        yield here


def _printer(folder: Path, name: str, count: int) -> Printer:
    """``cat`` of a file, as fast as it is read; or ``loop``, a shell that writes line by line."""
    file = folder / name
    if name == "cat":
        file.write_bytes(b"".join(_LINE % number for number in range(count)))
        return Printer(["/bin/cat", str(file)], count, count * len(_LINE % 0))
    file.write_text(_LOOP.format(end=10_000_000 + count), encoding="utf-8")
    return Printer(["/bin/sh", str(file)], count, count * len(_LINE % 0))


class Beside:
    """A row for each peer, with sparrow's own samples of the same run as ``ours``.

    ``goals`` are by the name of the peer's class; ``size`` is how many of something short a sample is the median of.
    """

    def __init__(
        self, here: Present, row: Row, sample: Callable[[Peer], float], goals: Mapping[str, Goal], size: int = 1
    ) -> None:
        self._like, self._sample, self._size = row, sample, size
        self._rows = {peer: self._made(peer.name, goals.get(type(peer).__name__)) for peer in here.peers}
        self._absent = here.missing
        self._unfit: dict[Peer, str] = {}

    def round(self) -> None:
        """One sample of each; what cannot be measured falls out, with its reason."""
        for peer, row in self._rows.items():
            if peer in self._unfit:
                continue
            try:
                row.baseline.append(statistics.median(self._sample(peer) for _ in range(self._size)))
            except (Unfit, Failed, OSError) as reason:
                row.baseline.clear()
                self._unfit[peer] = f"not compared with {peer.name}: {reason}"

    def rows(self) -> list[Row]:
        """One for each peer; those that could not be compared say why."""
        for peer, row in self._rows.items():
            row.ours, row.note = self._like.ours, self._unfit.get(peer, peer.note)
        rows = list(self._rows.values())
        for name, reason in self._absent.items():
            row = self._made(name, None)
            row.ours, row.note = self._like.ours, f"not compared with {name}: {reason}"
            rows.append(row)
        return rows

    def _made(self, against: str, goal: Goal | None) -> Row:
        told = "" if goal else "none: for comparison"
        return Row(self._like.figure, self._like.what, self._like.unit, against, goal=goal, goal_text=told)


def _close(peer: Peer) -> None:
    try:
        peer.close()
    except (Failed, OSError):
        pass  # it has ended by itself
