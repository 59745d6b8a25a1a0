"""What a house's long-lived processes use over time: samples from /proc, and a plot of them."""

from __future__ import annotations

import os
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import processes
from tests.support.house import House
from tests.support.memory import resident

PROCESSES = ("supervisor", "zygote", "adapters")
_COLOURS = ("#2a7f62", "#b5483a", "#3a5fb5")
_EVERY_S = 0.5
_MOST_POINTS = 400
"""More than a plot of this width can show would only make its file larger."""


@dataclass(frozen=True)
class Sample:
    """What there is at one moment: by process, in the order of PROCESSES, and of files."""

    at: float
    """Seconds since the sampling began."""
    descriptors: tuple[int, ...]
    threads: tuple[int, ...]
    memory: tuple[int, ...]
    """Resident, in bytes."""
    zombies: int
    sockets: tuple[str, ...]
    """What is in the runtime folder."""
    folders: int
    """How many runs have a working folder."""

    def held(self) -> tuple[object, ...]:
        """All that has to be the same whenever nothing is going on."""
        return (self.descriptors, self.threads, self.zombies, self.sockets, self.folders)


class Sampler(threading.Thread):
    """Looks every half second. ``pids`` gives the pids of PROCESSES; where one has just died, that look is left out."""

    def __init__(self, house: House, pids: Callable[[], Sequence[int]]) -> None:
        super().__init__(daemon=True)
        self._house, self._pids = house, pids
        self._began = time.monotonic()
        self._over = threading.Event()
        self.samples: list[Sample] = []

    def __enter__(self) -> Sampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(_EVERY_S):
            sample = self.look()
            if all(sample.memory):
                self.samples.append(sample)

    def look(self) -> Sample:
        """What there is now."""
        pids = list(self._pids())
        runtime = self._house.runtime
        return Sample(
            at=time.monotonic() - self._began,
            descriptors=tuple(len(processes.descriptors(pid)) for pid in pids),
            threads=tuple(_threads(pid) for pid in pids),
            memory=tuple(resident(pid) for pid in pids),
            zombies=sum(processes.parent(pid) in pids and processes.state(pid) == "Z" for pid in processes.pids()),
            sockets=tuple(sorted(str(path.relative_to(runtime)) for path in runtime.rglob("*"))),
            folders=len(os.listdir(self._house.places.runs)),
        )

    def links(self) -> Counter[str]:
        """What the processes have open now, without the numbers, which differ from one to the next."""
        return Counter(
            f"{name}: {re.sub('[0-9]+', 'N', link)}"
            for name, pid in zip(PROCESSES, self._pids(), strict=True)
            for link in processes.descriptors(pid)
        )

    def at_rest(self, timeout: float = 60.0) -> Sample:
        """What there is once nothing has changed for two seconds."""
        until = time.monotonic() + timeout
        last, same = self.look(), 0
        while same < 4:
            assert time.monotonic() < until, f"it does not come to rest: {last}"
            time.sleep(_EVERY_S)  # what is looked for is that nothing happens meanwhile
            now = self.look()
            same = same + 1 if now.held() == last.held() else 0
            last = now
        return last

    def memory(self, begin: float, end: float) -> tuple[float, ...]:
        """The median memory of each process between two times, in bytes."""
        chosen = [sample.memory for sample in self.samples if begin <= sample.at < end]
        return tuple(statistics.median(column) for column in zip(*chosen, strict=True))


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def draw(samples: Sequence[Sample], marks: Sequence[tuple[float, str]], path: Path) -> None:
    """Write an SVG of descriptors and memory over time; ``marks`` are times with a word for what happened."""
    import matplotlib as mpl  # it takes a second to import, which only this test has to pay
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "sparrow"  # the same samples make the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text: a third of the size
    samples = samples[:: max(1, -(-len(samples) // _MOST_POINTS))]
    figure = Figure(figsize=(9, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    times = [sample.at for sample in samples]
    for number, (name, colour) in enumerate(zip(PROCESSES, _COLOURS, strict=True)):
        upper.plot(times, [sample.descriptors[number] for sample in samples], color=colour, label=name, linewidth=1)
        lower.plot(times, [sample.memory[number] / (1 << 20) for sample in samples], color=colour, linewidth=1)
    upper.set_ylabel("descriptors")
    lower.set_ylabel("resident memory, MiB")
    lower.set_xlabel("seconds")
    for axes in (upper, lower):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        for at, _ in marks:
            axes.axvline(at, color="grey", linewidth=0.6, linestyle=":")
    for at, word in marks:
        upper.annotate(word, (at, 1), xycoords=("data", "axes fraction"), fontsize=7, rotation=90, va="top", ha="right")
    figure.legend(loc="outside upper right", ncols=len(PROCESSES), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
