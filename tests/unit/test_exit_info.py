from __future__ import annotations

import os
import select
import signal

import pytest

from sparrow_supervisor.exit_info import wait_status

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("end", [0, 7, -signal.SIGKILL, -signal.SIGTERM])
def test_how_a_process_ended_is_known_once_it_is_reaped(end: int) -> None:
    pid = os.fork()
    if pid == 0:
        if end < 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), -end)
        os._exit(end)
    pidfd = os.pidfd_open(pid)
    try:
        assert select.select([pidfd], [], [], 10)[0]
        assert wait_status(pidfd) is None
        _, status = os.waitpid(pid, 0)
        told = wait_status(pidfd)
        if told is None:
            pytest.skip("this kernel does not say it (Linux before 6.15)")
        assert told == status
        assert os.waitstatus_to_exitcode(told) == end
    finally:
        os.close(pidfd)


def test_another_descriptor_has_no_status() -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        assert wait_status(fd) is None
    finally:
        os.close(fd)
