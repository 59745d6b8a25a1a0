"""A command on a terminal of its own, with somebody who types."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.house import BIN, COMMAND_TIMEOUT_S, House

CTRL_C = "\x03"
CTRL_D = "\x04"
CTRL_BACKSLASH = "\x1c"


class Terminal:
    """A pseudo-terminal with a command in its foreground. Leaving ``with`` hangs up."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self._seen = bytearray()
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            args,
            env={**env, "TERM": "xterm-256color"},
            cwd=cwd,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  no thread of ours holds a lock here
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return  # the last one at the other side has left
            if not data:
                return
            self._seen += data

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        os.close(self._master)

    @property
    def screen(self) -> str:
        """All that has been written to it."""
        return self._seen.decode("utf-8", "replace")

    def as_usual(self) -> bool:
        """Whether it shows what is typed, and hands it on by lines."""
        modes = termios.tcgetattr(self._master)[3]
        return modes & termios.ECHO != 0 and modes & termios.ICANON != 0

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait(self, timeout: float = COMMAND_TIMEOUT_S) -> int:
        """Wait until the command has ended, and all that it has written is on the screen; its exit code."""
        code = self.process.wait(timeout)
        self._reader.join(10)
        return code


def on_terminal(house: House, *args: str) -> Terminal:
    """`sparrow ARGS` on a terminal."""
    return Terminal([str(BIN / "sparrow"), *args], house.env, house.work)
