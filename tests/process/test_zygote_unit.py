"""The zygote as a unit of systemd: of two that come at once, as they may in an upgrade, one is the unit's main process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.process


def test_of_two_that_come_at_once_one_becomes_the_main_process(house: House) -> None:
    said: list[str] = []
    address = str(house.top / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        env = {
            **house.env,
            "NOTIFY_SOCKET": address,
        }
        heirs = [
            subprocess.Popen([sys.executable, "-P", "-m", "sparrow_supervisor.zygote", "--unit"], env=env)
            for _ in range(4)
        ]

        def heard() -> str:
            try:
                while True:
                    words, fds, _, _ = socket.recv_fds(manager, 4096, 4)
                    for fd in fds:
                        os.close(fd)
                    said.append(words.decode())
            except BlockingIOError:
                return "".join(said)

        try:
            eventually(lambda: "READY=1" in heard(), what="a zygote that is ready")
            eventually(lambda: sum(heir.poll() is None for heir in heirs) == 1, what="the end of the others")
            (main,) = [heir for heir in heirs if heir.poll() is None]
            assert [heir.returncode for heir in heirs if heir is not main] == [0, 0, 0]
            assert [line for line in heard().splitlines() if line.startswith("MAINPID=")] == [f"MAINPID={main.pid}"]
        finally:
            for heir in heirs:
                heir.terminate()
                heir.wait()
