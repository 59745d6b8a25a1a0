"""Who is a run's monitor: the one that holds its lock, and nobody once it has died."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sparrow_mp.run.alive import hold, monitor_of


@contextmanager
def process(work: Callable[[], None]) -> Iterator[int]:
    """A process that does this, says so, and is there until the end of ``with``."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(writer, b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"!", "it could not"
        yield pid
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_nobody() -> None:
    assert monitor_of(Path("/nowhere")) is None


def test_a_lock_that_was_never_held(tmp_path: Path) -> None:
    (tmp_path / "alive").write_bytes(b"4242")
    assert monitor_of(tmp_path) is None


def test_the_holder_is_known_by_its_pidfd_and_gone_with_its_process(tmp_path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with process(lambda: keep(hold(tmp_path))) as pid:
        found = monitor_of(tmp_path)
        assert found is not None
        assert found[0] == pid
        signal.pidfd_send_signal(found[1], 0)
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(found[1], 0)
    os.close(found[1])
    assert monitor_of(tmp_path) is None
    assert len(os.listdir("/proc/self/fd")) == descriptors


def keep(fd: int) -> None:
    """Held for as long as the process lives."""


def test_what_the_holder_forks_does_not_hold(tmp_path: Path) -> None:
    with process(lambda: keep(hold(tmp_path))) as pid:
        found = monitor_of(tmp_path)
        assert found is not None
        os.close(found[1])

        def child() -> None:
            assert monitor_of(tmp_path) is not None

        with process(child):
            again = monitor_of(tmp_path)
            assert again is not None
            assert again[0] == pid
            os.close(again[1])


def test_a_child_that_outlives_its_monitor_is_none(tmp_path: Path) -> None:
    reader, writer = os.pipe()

    def monitor_with_child() -> None:
        keep(hold(tmp_path))
        if os.fork() == 0:
            os.close(reader)
            signal.alarm(60)
            signal.pause()
            os._exit(0)
        os.close(writer)

    with process(monitor_with_child):
        os.close(writer)
        found = monitor_of(tmp_path)
        assert found is not None
        os.close(found[1])
        children = Path(f"/proc/{found[0]}/task/{found[0]}/children").read_text().split()
    assert monitor_of(tmp_path) is None
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    assert os.read(reader, 1) == b""  # it was there until now
    os.close(reader)


def test_there_is_one_monitor(tmp_path: Path) -> None:
    with process(lambda: keep(hold(tmp_path))), pytest.raises(BlockingIOError):
        hold(tmp_path)
