"""The supervisor as a unit of the user's systemd: readiness, a heartbeat, what is running, and why it is to end."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from functools import partial

from sparrow_supervisor.loop import Loop
from sparrow_supervisor.notify import Notify

_log = logging.getLogger(__name__)

SUPERVISOR, RUNS, KEEP = "sparrow.service", "sparrow-runs.service", "sparrow-keep.target"
_SYSTEMCTL = ["systemctl", "--user", "--no-ask-password", "--no-pager"]
_LOOK_S = 0.02
_ANSWER_S = 5.0
_BEAT_S = 1.0
_MORE_TIME_S = 60
_LONGEST_END_S = 600.0
"""After that systemd need not wait any longer: it kills us, and then the runs."""
NAMED = 3
"""How many runs ``systemctl status`` names."""


class Unit:
    """What the reactor says to systemd and asks it. Nothing here waits."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._status = ""
        self._ready = False
        self._patient_until = 0.0
        self._holding: subprocess.Popen[bytes] | None = None

    def failed(self, why: str) -> None:
        """It cannot start: ``systemctl status`` says why."""
        self._notify.tell(STATUS=why)

    def goes_on(self) -> None:
        """Starting takes its time, and goes on: systemd is to wait."""
        now = time.monotonic()
        if now >= self._patient_until:
            self._patient_until = now + _BEAT_S
            self._notify.tell(EXTEND_TIMEOUT_USEC=_MORE_TIME_S * 1_000_000)

    def ready(self, loop: Loop, status: Callable[[], str]) -> None:
        """It serves; from now on systemd is told so, by the loop itself, as often as it wants to hear it."""
        if not self._ready:
            self._ready = True
            self._status = status()
            self._notify.tell(READY=1, STATUS=self._status)
            self._beat(loop, status)

    def _beat(self, loop: Loop, status: Callable[[], str]) -> None:
        pause = _BEAT_S if self._notify.watchdog_s is None else min(_BEAT_S, self._notify.watchdog_s / 3)
        loop.later(pause, partial(self._beat, loop, status))  # first: what fails here once is no reason to be ended
        words: dict[str, object] = {"WATCHDOG": 1} if self._notify.watchdog_s is not None else {}
        if time.monotonic() < self._patient_until:
            words["EXTEND_TIMEOUT_USEC"] = _MORE_TIME_S * 1_000_000
        now = status()
        if now != self._status:
            self._status = words["STATUS"] = now
        if words:
            self._notify.tell(**words)

    def stopping(self) -> None:
        """It has begun to end; runs may take their time."""
        self._patient_until = self._patient_until or time.monotonic() + _LONGEST_END_S
        self._notify.tell(STOPPING=1, EXTEND_TIMEOUT_USEC=_MORE_TIME_S * 1_000_000)

    # ── why it is to end ──

    def ask_why(self, loop: Loop, decided: Callable[[bool], None]) -> None:
        """Ask systemd what it is about; ``decided`` is called with whether the runs are to be kept.

        Where systemd cannot be asked they are: should it mean to stop them, it does so itself with their unit.
        """
        try:
            asked = subprocess.Popen(
                [*_SYSTEMCTL, "list-jobs", "--no-legend", "--plain"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            _log.error("systemd cannot be asked whether this is a restart: %s", error)
            decided(True)
            return
        assert asked.stdout is not None
        os.set_blocking(asked.stdout.fileno(), False)
        self._await_answer(loop, asked, b"", time.monotonic() + _ANSWER_S, decided)

    def _await_answer(
        self, loop: Loop, asked: subprocess.Popen[bytes], heard: bytes, until: float, decided: Callable[[bool], None]
    ) -> None:
        assert asked.stdout is not None
        ended = asked.poll() is not None
        heard += asked.stdout.read() or b""
        if not ended and time.monotonic() < until:
            loop.later(_LOOK_S, partial(self._await_answer, loop, asked, heard, until, decided))
            return
        asked.stdout.close()
        if not ended:
            asked.kill()
        if asked.returncode != 0:
            _log.error("systemd does not say whether this is a restart; the runs are left to it")
        decided(asked.returncode != 0 or keeps_runs(heard.decode(errors="replace")))

    # ── ending without the runs ──

    def hold_runs(self) -> None:
        """Keep the unit of the runs needed while there is no supervisor."""
        try:
            self._holding = subprocess.Popen(
                [*_SYSTEMCTL, "--no-block", "start", KEEP], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        except OSError as error:
            _log.error("systemd cannot be asked to keep the runs, and may end them: %s", error)

    @property
    def held(self) -> bool:
        """Whether nothing is to be waited for in that."""
        return self._holding is None or self._holding.poll() is not None


def keeps_runs(jobs: str) -> bool:
    """Whether systemd's jobs (``JOB UNIT TYPE STATE`` a line) mean that the supervisor alone is to end.

    A restart keeps the runs, and so does the start of what is there to keep them; a stop does not, nor does whatever befalls
    their own unit. Without a job somebody has sent the signal by hand, which means what it means everywhere.
    """
    kinds = {words[1]: words[2] for line in jobs.splitlines() if len(words := line.split()) >= 3}
    if kinds.get(RUNS) in ("stop", "restart", "try-restart"):
        return False
    return kinds.get(KEEP) == "start" or kinds.get(SUPERVISOR) in ("restart", "try-restart", "start")


def summary(names: Iterable[str], running: int, queued: int) -> str:
    """What is running, as one line; ``names`` are those of the first of them."""
    shown = list(names)[:NAMED]
    more = ", …" if running > len(shown) else ""
    line = f"{running:,} running ({', '.join(shown)}{more})" if running else "nothing is running"
    return f"{line}, {queued:,} queued" if queued else line
