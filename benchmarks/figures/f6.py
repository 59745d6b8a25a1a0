"""F6: what a command prints, in lines a second: into the transcript, beside what supervisord and circus write down plainly."""

from __future__ import annotations

import functools
import time

from benchmarks import peers
from benchmarks.daemon import Sparrow, sparrow
from benchmarks.peers.circus import Circus
from benchmarks.peers.peer import Peer, Printer
from benchmarks.peers.supervisord import Supervisord
from benchmarks.rows import Failed, Goal, Plan, Row
from sparrow_mp import transcript

TITLE = "what a command prints"
_WHAT = {
    "cat": "`cat` of lines of 58 bytes, to the record",
    "loop": "a shell that writes each by itself",
}


def measure(plan: Plan) -> list[Row]:
    """Each line is an event of its own with a number and a time; theirs is the text alone."""
    sizes = {"cat": plan.size(300_000, 50_000), "loop": plan.size(200_000, 50_000)}
    found: list[Row] = []
    with peers.present(plan, (Supervisord, Circus), lines=sizes) as here, sparrow() as bench:
        for name, what in _WHAT.items():
            ours = Row("F6", what, "lines/s", "")
            theirs = functools.partial(_theirs, name)
            beside = peers.Beside(here, ours, theirs, {"Supervisord": Goal(0.5, "at least")})
            for _ in range(plan.rounds):
                ours.ours.append(_recorded(bench, here.printers[name]))
                beside.round()
            found += beside.rows()
    found[0].note = (  # the peer's own is that of its second row
        "each line was found once in the transcript, in order; not compared: task-spooler and systemd hand the command a"
        " file and read no lines of it, tmux has a screen and no log"
    )
    return found


def _theirs(name: str, peer: Peer) -> float:
    return peer.lines_a_second(name)


def _recorded(bench: Sparrow, printer: Printer) -> float:
    """From submit until the end is recorded, which comes after the last line."""
    start = time.perf_counter()
    run = bench.client.submit(argv=list(printer.argv))
    bench.hear_only(f"{run.id}/RunFinished")
    bench.finish(run)
    taken = time.perf_counter() - start
    found = 0
    for line in transcript.iter_lines(bench.client.places.transcript(run.id)):
        if b'"type":"Output"' in line:
            if b" and %08d" % found not in line and b" and %08d" % (10_000_000 + found) not in line:
                raise Failed(f"line {found + 1} is missing in the transcript, or is there twice")
            found += 1
    if found != printer.count:
        raise Failed(f"{printer.count} lines were printed and {found} are recorded")
    return printer.count / taken
