"""The zygotes that live: one starts the new runs; others, of another sparrow, see theirs to their end."""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from sparrow_mp.paths import Places
from sparrow_supervisor import unit_zygote
from sparrow_supervisor.fingerprint import fingerprint
from sparrow_supervisor.loop import Loop
from sparrow_supervisor.warm import WarmZygotes
from sparrow_supervisor.zygote_client import ZygoteClient

_log = logging.getLogger(__name__)

_RETRY_S = 0.2
_PUMP_S = 0.05
_ANSWERS_S = 5.0
_ENDS_S = 5.0

Heard = Callable[[ZygoteClient, dict[str, Any], int], None]
"""Takes one thing that a zygote has said, and the pidfd that came with it (-1 where none did)."""


Wanted = dict[str, Any]
"""How the supervisor is to be started again; ``revival.Wanted``, which this process need not import."""


class Zygotes:
    """Connections to all of them. ``young`` is the one that is asked for new runs.

    ``heard`` takes what they say, ``bereaved`` a zygote that has died. With ``unit`` systemd starts them, in a unit of their
    own. Raises OSError, StateError where none can be had.
    """

    def __init__(
        self,
        loop: Loop,
        places: Places,
        heard: Heard,
        bereaved: Callable[[ZygoteClient], None],
        *,
        unit: bool = False,
    ) -> None:
        self._loop = loop
        self._places = places
        self._heard = heard
        self._bereaved = bereaved
        self._unit = unit
        self._own = places.zygote_socket(fingerprint(unit=unit))
        self._leaving = False
        self._wanted: Wanted | None = None
        self._unreaped: list[ZygoteClient] = []
        self._warm = WarmZygotes(loop, places, self._watch, self._collect)
        if not unit:
            self._warm.find()
        self._elders = list(self._find_elders())
        self.young = self._find_or_start(self._elders)
        for elder in self._elders:
            elder.ask(op="leave")  # it would start the sparrow that it comes from
            elder.ask(op="end")

    def _find_or_start(self, elders: list[ZygoteClient]) -> ZygoteClient:
        if self._unit:
            return unit_zygote.find(self._own, elders)
        return ZygoteClient.find_or_start(self._own, self._places.zygote_log)

    def _find_elders(self) -> Iterator[ZygoteClient]:
        """Zygotes of another sparrow, which an earlier supervisor used: they end when their runs have."""
        for path in sorted(self._places.runtime.glob("zygote-*.sock")):
            if path != self._own and path not in (warm.path for warm in self._warm.ready):
                try:
                    elder = ZygoteClient.find(path)
                except ConnectionRefusedError:
                    path.unlink(missing_ok=True)
                    continue
                except OSError as error:
                    _log.error("the zygote at %s cannot be reached: %s", path, error)
                    continue
                yield elder

    @property
    def all(self) -> list[ZygoteClient]:
        """The one for new runs, those with more loaded, and the elders."""
        return [self.young, *self._warm.ready, *self._elders]

    @property
    def warm(self) -> list[ZygoteClient]:
        """Those that have loaded more for the runs of some engines."""
        return self._warm.ready

    @property
    def problems(self) -> list[str]:
        """What people should know: who is left of runs that have ended."""
        return [
            f"process {pid} of a run that has ended cannot be ended: it waits in the kernel, is frozen, or is another user's; "
            "it is tried again each second"
            for zygote in self.all
            for pid in zygote.strays
        ] + self._warm.problems

    def greet(self) -> list[tuple[ZygoteClient, dict[str, Any], int]]:
        """What all tell a new supervisor, each up to its last word. The loop does not turn yet, so waiting is allowed."""
        return [(zygote, body, fd) for zygote in self.all if zygote.found for body, fd in self._first_words(zygote)]

    @staticmethod
    def _first_words(zygote: ZygoteClient) -> list[tuple[dict[str, Any], int]]:
        told: list[tuple[dict[str, Any], int]] = []
        deadline = time.monotonic() + _ANSWERS_S
        while time.monotonic() < deadline and not zygote.closed:
            select.select([zygote], [], [], 0.1)
            for body, fd in zygote.receive():
                if "told" in body:
                    return told
                if "zygote" not in body:
                    told.append((body, fd))
        _log.error("the zygote %s does not answer; going on without it", zygote.pid)
        return told

    def attend(self) -> None:
        """From now on the loop hears them."""
        for zygote in self.all:
            self._watch(zygote)
        for elder in self._elders:
            _log.info(
                "the zygote %s is of another sparrow (%s): it sees its runs to their end", elder.pid, elder.version
            )

    def _watch(self, zygote: ZygoteClient) -> None:
        self._loop.watch(zygote.fileno(), partial(self._hear, zygote))
        self._loop.soon(partial(self._hear, zygote))

    def ask(self, **body: Any) -> None:
        """Ask the one for new runs."""
        self.young.ask(**body)
        self._pump(self.young)

    def spawn(self, asked: ZygoteClient | None, modules: tuple[str, ...], **body: Any) -> ZygoteClient:
        """Have a run forked by the zygote that was ``asked`` before, while that lives; else by one that has these modules
        loaded, where there is one, or by the usual one. Which it was.
        """
        if asked is None or asked.closed or asked not in self.all:
            # Under systemd none can be started where runs belong: in their unit.
            asked = (None if self._unit else self._warm.get(modules)) or self.young
        asked.ask(op="spawn", **body)
        self._pump(asked)
        return asked

    def tell_all(self, **body: Any) -> None:
        """Tell all: whom it does not concern takes no notice."""
        for zygote in self.all:
            zygote.ask(**body)
            self._pump(zygote)

    def _pump(self, zygote: ZygoteClient) -> None:
        zygote.pump()
        if zygote.unsent and not zygote.closed:
            self._loop.later(_PUMP_S, partial(self._pump, zygote))

    def _hear(self, zygote: ZygoteClient) -> None:
        if zygote not in self.all:
            return  # buried meanwhile
        for body, fd in zygote.receive():
            self._loop.guard(partial(self._heard, zygote, body, fd))  # so that one cannot take the others along
        if zygote.closed and not self._leaving:
            self._bury(zygote)

    def _bury(self, dead: ZygoteClient) -> None:
        """It is gone. Its runs go on, each with its monitor; where it was the one for new runs, another takes its place."""
        self._loop.unwatch(dead.fileno())
        dead.close()
        self._collect(dead)
        if dead in self._warm.ready:
            _log.info(
                "the zygote %s, which had more loaded, has ended; the next run that wants it has it made", dead.pid
            )
            self._warm.lost(dead)
            self._bereaved(dead)
            return
        if dead in self._elders:
            self._elders.remove(dead)
            self._part_from(dead)
            return
        if self._unit:
            _log.error("the zygote died; systemd ends what it had forked, and starts a new one")
            self._bereaved(dead)  # now: the new one may come only after this supervisor has gone
        else:
            _log.error("the zygote died; a new one is started, and the runs go on")
        self._succeed(dead)

    def _collect(self, dead: ZygoteClient) -> None:
        if not dead.reap():
            self._unreaped.append(dead)  # its connection ended first; SIGCHLD tells when the rest has

    def _part_from(self, elder: ZygoteClient) -> None:
        """An elder is gone, or has only let go of a supervisor that did not listen for long."""
        try:
            again = ZygoteClient.find(elder.path)
        except OSError:
            elder.path.unlink(missing_ok=True)
        else:
            self._elders.append(again)
            self._watch(again)
        self._bereaved(elder)

    def _succeed(self, dead: ZygoteClient) -> None:
        try:
            self.young = self._find_or_start([])
        except OSError as error:
            (_log.debug if self._unit else _log.error)("no new zygote can be had (%s); trying again", error)
            self._loop.later(_RETRY_S, partial(self._succeed, dead))
            return
        self._watch(self.young)
        if self._wanted is not None:
            self.guard(self._wanted)
        self._bereaved(dead)

    def guard(self, wanted: Wanted | None) -> None:
        """Have the supervisor started again should it die, by whoever follows the present zygote too; None: leave that."""
        self._wanted = wanted
        if wanted is not None:
            self.ask(op="guard", wanted=wanted)
        else:
            self.ask(op="leave")

    def reap(self) -> None:
        """Collect those of our own children that have ended."""
        for zygote in (self.young, *self._warm.ready):
            zygote.reap()
        self._unreaped = [dead for dead in self._unreaped if not dead.reap()]

    # ── the supervisor's end ──

    def leave(self, *, end: bool) -> None:
        """The supervisor means to end: nobody need start it again. With ``end`` they end too, once no run is left."""
        self._leaving = True
        self._warm.leave()
        self.ask(op="leave")
        if end:
            self.tell_all(op="end")

    @property
    def gone(self) -> bool:
        """Whether all have closed their end."""
        for zygote in self.all:
            if not zygote.closed:
                zygote.receive()
        self.reap()
        return all(zygote.closed for zygote in self.all) and not self._unreaped

    def close(self) -> None:
        """Let go of the connections; who has not been told to end lives on."""
        for zygote in self.all:
            zygote.close()

    def wait(self) -> None:
        """They have closed their end; their processes take a moment more. The loop has stopped: waiting hurts nobody."""
        for zygote in self.all:
            if zygote.pid is not None:
                try:
                    fd = os.pidfd_open(zygote.pid)
                except ProcessLookupError:
                    continue
                select.select([fd], [], [], _ENDS_S)
                os.close(fd)
                zygote.reap()
