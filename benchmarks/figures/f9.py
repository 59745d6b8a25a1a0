"""F9: `kill --now` of a tree of 20 processes until each is dead, beside systemd's stop of the same tree with SIGKILL."""

from __future__ import annotations

import os
import uuid

from benchmarks import peers, tree
from benchmarks.daemon import Sparrow, sparrow
from benchmarks.peers.systemd import Systemd
from benchmarks.rows import Failed, Goal, Plan, Row, median_of

TITLE = "the end of a tree of 20"


def measure(plan: Plan) -> list[Row]:
    """Both are asked over a socket that is connected already: the start of `sparrow` or `systemctl` is not in it."""
    size = plan.size(5, 3)
    against = "systemd's stop of the same tree in a unit, with KillSignal=SIGKILL"
    ours = Row("F9", f"a tree of {tree.SIZE}, from the request until each is dead", "ms", against)
    ours.goal = Goal(10, "at most", "ours")
    with peers.present(plan, (Systemd,)) as here, sparrow() as bench:
        for _ in range(plan.rounds):
            ours.ours.append(median_of(size, lambda: _killed(bench)))
            for peer in list(here.peers):
                try:
                    ours.baseline += [median_of(size, peer.killed)] if isinstance(peer, Systemd) else []
                except (Failed, OSError) as reason:
                    here.peers.remove(peer)
                    here.missing[peer.name] = f"not compared with {peer.name}: {reason}"
                    ours.baseline.clear()
    same = Row("F9", "the same, beside systemd", "ms", against, ours.baseline, ours.ours, goal=Goal(1, "at most"))
    same.note = "; ".join([*(peer.note for peer in here.peers), *here.missing.values()])
    return [ours, same]


def _killed(bench: Sparrow) -> float:
    mark = uuid.uuid4().hex
    run = bench.client.submit(argv=tree.ARGV, env={**os.environ, tree.MARK: mark})
    taken = tree.killed(mark, lambda: run.interrupt(now=True))
    payload = bench.hear_topic(f"{run.id}/RunFinished")
    if b'"status":"interrupted"' not in payload:
        raise Failed(f"a run that was killed ended otherwise: {payload.decode(errors='replace')}")
    return taken
