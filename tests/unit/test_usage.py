"""What runs use: the kernel's lines, whose process is whose, and when there is a look."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparrow_supervisor.loop import Loop
from sparrow_supervisor.usage import Stat, UsageWatch, Use, _add_up, _Sum, parse_stat, read_stat

pytestmark = pytest.mark.unit

HZ = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
REST = b"S 7 1 1 0 -1 4194560 0 0 0 0 100 50 30 20 20 0 1 0 9000 4096000 25 18446744073709551615 1 1 0"


@pytest.mark.parametrize("name", [b"cat", b"", b"a b", b") R 1 2 3 (", b"\n", b"\xff\xfe", b"((", b"1 2 3 4 5 6"])
def test_a_line_of_the_kernel_whatever_the_name(name: bytes) -> None:
    stat = parse_stat(b"12 (" + name + b") " + REST)
    assert stat.cpu_s == pytest.approx(200 / HZ)
    assert stat == Stat(parent=7, cpu_s=stat.cpu_s, memory_bytes=25 * PAGE, began=9000 * (1 / HZ))


@pytest.mark.parametrize("line", [b"", b"12 (cat) S", b"12 cat S 7", b"12 (cat) " + b"x " * 30])
def test_what_is_no_such_line(line: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_stat(line)


def test_oneself_and_nobody() -> None:
    own = read_stat(os.getpid())
    assert own is not None
    assert own.parent == os.getppid()
    assert own.memory_bytes > 1 << 20
    assert 0 < own.began <= time.clock_gettime(time.CLOCK_BOOTTIME)
    assert read_stat(2**22 + 1) is None


@given(st.dictionaries(st.integers(1, 30), st.integers(0, 30)), st.sets(st.integers(1, 30)))
def test_each_process_counts_for_the_nearest_root_above_it(parents: dict[int, int], roots: set[int]) -> None:
    found = {pid: Stat(parent, 2.0**pid, 1 << pid, float(pid)) for pid, parent in parents.items()}
    sums: dict[int, _Sum] = {}
    assert sum(1 for _ in _add_up(found, roots, sums)) == len(found)
    expected = {root: [0.0, 0] for root in roots & found.keys()}
    for pid in found:
        root, seen = pid, set()
        while root not in roots and root in found and root not in seen:
            seen.add(root)
            root = found[root].parent
        if root in expected:
            expected[root][0] += 2.0**pid
            expected[root][1] += 1 << pid if pid != root else 0
    assert {root: [total.cpu_s, total.memory_bytes] for root, total in sums.items()} == expected


def test_a_tree_that_works_is_seen_to_and_what_has_ended_counts() -> None:
    loop = Loop()
    seen: list[Mapping[str, Use]] = []
    until = time.monotonic() + 40
    short = "i=0; while [ $((i=i+1)) -lt 100000 ]; do :; done"
    script = f"while :; do sh -c '{short}'; done"  # whoever works is always somebody else, and soon gone
    with subprocess.Popen(["sh", "-c", script]) as root:
        watch = UsageWatch(loop, lambda: {"r": root.pid, "gone": 2**22 + 1})

        def told(uses: Mapping[str, Use]) -> None:
            seen.append(uses)
            busy = [each["r"] for each in seen if "r" in each and each["r"].cpu_percent > 1]
            # All that was seen may be of one look, which may have fallen between two of the children.
            enough = len(busy) > 3 and max(use.memory_bytes for use in busy) > 100_000
            if enough or time.monotonic() > until:
                loop.stop()
            else:
                loop.later(0.02, ask)

        def ask() -> None:
            watch.ask(told)

        try:
            loop.soon(ask)
            loop.run()
        finally:
            root.terminate()
    assert time.monotonic() < until
    assert all(uses.keys() <= {"r"} for uses in seen)  # the first may be told before the first look has ended
    most = max(uses["r"].memory_bytes for uses in seen if "r" in uses)
    assert most > 100_000, "the children's"
    assert not watch._waiting
