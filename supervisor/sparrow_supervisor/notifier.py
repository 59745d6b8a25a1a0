"""A process that calls the user's command for one notice after another: ``python -P -m sparrow_supervisor.notifier``.

Each line on standard input is the path of a notice (``notices.py``); each is answered by a line of JSON (``Said``). The command,
and whatever it starts, is below this process, which is a subreaper: so all of it can be ended when its time is over. When
standard input ends, the supervisor is gone: what is being called has the rest of its time. SIGTERM ends it at once.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import setproctitle

from sparrow_mp.run import tree

_STDERR_KEPT = 2000
_LOOK_S = 0.05
_KILL_S = 5.0

BEGUN = ".begun"
"""What a notice is called once it is taken: whoever renames it first calls the command, and nobody does so again."""


class Call(msgspec.Struct):
    """What is in a notice that is to be told: the command, the variables that it gets beside the supervisor's, what it reads, its
    time in seconds. ``approval`` is what the run waits for, and is not read here.
    """

    argv: list[str]
    env: dict[str, str]
    stdin: str
    timeout: float
    umask: int = 0o077
    approval: dict[str, Any] | None = None


class Said(msgspec.Struct, omit_defaults=True):
    """What came of a notice: ``problem`` says what went wrong, with the command's last words on standard error."""

    problem: str = ""
    stderr: str = ""


def main() -> int:
    """Call until there is no more to call."""
    tree.become_subreaper()
    signal.signal(signal.SIGTERM, _end_at_once)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # commands would inherit it where who started us ignores it
    for line in sys.stdin.buffer:
        said = handle(Path(os.fsdecode(line.rstrip(b"\n"))))
        try:
            os.write(1, msgspec.json.encode(said) + b"\n")
        except BrokenPipeError:
            break  # the supervisor is gone
    return 0


def handle(notice: Path) -> Said:
    """Take the notice and call the command."""
    begun = notice.with_suffix(BEGUN)
    try:
        call = msgspec.json.decode(notice.read_bytes(), type=Call)
        notice.rename(begun)
    except FileNotFoundError:
        return Said()  # somebody has taken it
    except (OSError, msgspec.DecodeError) as error:
        return Said(f"its notice cannot be read: {error}")
    return run_command(call)


def run_command(call: Call) -> Said:
    """Call it, and wait until it and all that it started have ended, or until its time is over and they are killed."""
    given = os.memfd_create("notice", os.MFD_CLOEXEC)  # no pipe: the command may not read it
    try:
        os.write(given, call.stdin.encode())
        os.lseek(given, 0, os.SEEK_SET)
        try:
            process = subprocess.Popen(
                call.argv,
                env={**os.environ, **call.env},
                cwd=os.path.expanduser("~"),
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                umask=call.umask,
            )
        except (OSError, ValueError) as error:
            return Said(f"it cannot be started: {error}")
    finally:
        os.close(given)
    assert process.stderr is not None
    with process.stderr:
        words = _Tail(process.stderr.fileno())
        in_time = _wait(process.pid, words, time.monotonic() + call.timeout)
        code = _REAPED.get(process.pid)
        left = [] if in_time else tree.end_tree(_reap, limit=_KILL_S)
        words.read()
    process.returncode = code if code is not None else -signal.SIGKILL  # it is reaped here, and Popen need not try
    _REAPED.clear()
    if left:
        return Said(
            f"it was not done after {call.timeout:g} s, and processes of it cannot be ended: {left}", words.text
        )
    if not in_time:
        return Said(f"it was not done after {call.timeout:g} s, and was killed", words.text)
    if code:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        return Said(f"it ended with {how}", words.text)
    return Said()


_REAPED: dict[int, int] = {}
"""How those ended that were waited for: exit codes, or signals as negative numbers."""


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _REAPED[pid] = os.waitstatus_to_exitcode(status)


def _wait(pid: int, words: _Tail, until: float) -> bool:
    """Until nobody is left; False where time is over first."""
    main = os.pidfd_open(pid)
    try:
        while True:
            _reap()
            if not tree.children(os.getpid()):
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            words.wait(min(left, _LOOK_S), [] if pid in _REAPED else [main])
    finally:
        os.close(main)


class _Tail:
    """The end of what comes out of a pipe."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._kept = b""
        self._ended = False

    @property
    def text(self) -> str:
        """What is kept."""
        return self._kept.decode("utf-8", "replace").strip()

    def wait(self, seconds: float, others: list[int]) -> None:
        """Read what comes; no longer than so long, or than until something has come, here or at one of the others."""
        mine = [] if self._ended else [self._fd]
        if self._fd in select.select([*mine, *others], [], [], seconds)[0]:
            self.read()

    def read(self) -> None:
        """Read what there is, of an endless flood a part."""
        for _ in range(16):
            try:
                data = os.read(self._fd, 65536)
            except BlockingIOError:
                return
            if not data:
                self._ended = True
                return
            self._kept = (self._kept + data)[-_STDERR_KEPT:]


def _end_at_once(number: int, frame: FrameType | None) -> None:
    tree.end_tree(_reap, limit=_KILL_S)
    os._exit(0)


if __name__ == "__main__":
    setproctitle.setproctitle("sparrow-notifier")
    sys.exit(main())
