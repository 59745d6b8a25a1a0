"""A notifier, seen from the supervisor: a process that calls the user's command, started when there is something to tell."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from sparrow_supervisor.loop import Loop
from sparrow_supervisor.notifier import Said

_log = logging.getLogger(__name__)

_LATE_S = 15.0
"""How much longer than the command's time a notifier may take; then it is killed."""


class Notifier:
    """One process that calls commands, one at a time. ``gone`` is called once it has ended."""

    def __init__(
        self,
        loop: Loop,
        said: Callable[[Notifier, Path, Said], None],
        gone: Callable[[Notifier], None],
    ) -> None:
        """Raises OSError."""
        self._loop = loop
        self._said = said
        self._told_gone = gone
        self._path: Path | None = None
        self._heard = b""
        self.taken = 0
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sparrow_supervisor.notifier"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._out.fileno(), False)
        loop.watch(self._out.fileno(), self._hear)

    @property
    def idle(self) -> bool:
        """Whether it can be given something."""
        return self._path is None and not self._in.closed

    def take(self, path: Path, timeout: float) -> None:
        """Have it call what is in the notice."""
        self._path = path
        self.taken += 1
        self._loop.later(timeout + _LATE_S, partial(self._look_after, self.taken))
        try:
            os.write(self._in.fileno(), os.fsencode(path) + b"\n")  # shorter than a pipe takes at once
        except BrokenPipeError:
            pass  # its end is heard

    def end_where_idle(self, taken: int) -> None:
        """It has had nothing to do since."""
        if self.idle and taken == self.taken:
            self._in.close()

    def end(self) -> None:
        """It ends what it calls, and itself."""
        self._process.terminate()

    def _look_after(self, taken: int) -> None:
        if self._path is not None and taken == self.taken and self._process.poll() is None:
            _log.error("a notifier did not answer in time and is killed")
            self._process.kill()

    def _hear(self) -> None:
        data = self._out.read(65536)
        if data:
            self._heard += data
            if self._heard.endswith(b"\n") and self._path is not None:
                path, self._path, line, self._heard = self._path, None, self._heard, b""
                self._said(self, path, msgspec.json.decode(line, type=Said))
        elif data is not None:
            self._loop.unwatch(self._out.fileno())
            self._out.close()
            self._in.close()
            self._reap()

    def _reap(self) -> None:
        if self._process.poll() is None:
            self._loop.later(0.01, self._reap)
            return
        if self._path is not None:
            path, self._path = self._path, None
            self._said(self, path, Said("the notifier that called it died"))
        self._told_gone(self)
