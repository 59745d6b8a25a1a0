"""Warm zygotes: each has loaded beforehand what an engine imports that takes long to import, so that its runs need not.

None is started before a run wants it, and no run waits for it: until it is ready, runs are forked from the usual zygote and
import for themselves. One that nothing has been asked of for a while ends by itself, and is made anew when it is wanted.
"""

from __future__ import annotations

import hashlib
import logging
import sysconfig
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from sparrow_mp.paths import Places
from sparrow_mp.run.engines import PRELOADED
from sparrow_mp.settings import Config
from sparrow_supervisor.fingerprint import fingerprint
from sparrow_supervisor.loop import Loop
from sparrow_supervisor.zygote_client import ZygoteClient

_log = logging.getLogger(__name__)

_COMING = ".new"
"""What the name of its socket ends with until it is ready, so that no later supervisor finds one that is not."""
_AFTER_S = 1.5
"""After the first run that wants one: that has the same to import, and is not to share a processor with it meanwhile."""
_RETRY_S = 300.0
_EXECUTE = ("command", "shell")
"""The engines that become another program at once: what is loaded is nothing to them."""


def modules_for(config: Config, engine: str) -> tuple[str, ...]:
    """What a run of this engine is to find loaded. An engine's own table goes before what is known of it, and before [run]."""
    if engine in _EXECUTE:
        return ()
    said = config.engines.get(engine, {}).get("preload")
    return tuple(said if said is not None else (*PRELOADED.get(engine, ()), *config.run.preload))


class WarmZygotes:
    """``arrived`` takes each that is ready, to be listened to, and ``ended`` each that has ended before, to be reaped."""

    def __init__(
        self, loop: Loop, places: Places, arrived: Callable[[ZygoteClient], None], ended: Callable[[ZygoteClient], None]
    ) -> None:
        self._loop = loop
        self._places = places
        self._arrived = arrived
        self._ended = ended
        self._ready: dict[Path, ZygoteClient] = {}
        self._due: set[Path] = set()
        self._coming: dict[Path, ZygoteClient] = {}
        self._unfit: dict[Path, tuple[str, ...]] = {}
        self._leaving = False

    @property
    def ready(self) -> list[ZygoteClient]:
        """Those that can be asked."""
        return list(self._ready.values())

    @property
    def problems(self) -> list[str]:
        """What the settings name and cannot be had. Where an extra is missing that an engine needs, its runs say so."""
        return [
            f"`preload` names what cannot be loaded beforehand ({', '.join(modules)}); zygote.log says why, and runs load it"
            " themselves"
            for modules in self._unfit.values()
            if modules not in PRELOADED.values()
        ]

    def find(self) -> None:
        """Those that an earlier supervisor has left. Called before the loop turns."""
        for path in self._places.runtime.glob(f"zygote-*{_COMING}"):
            path.unlink(missing_ok=True)  # first, so that one is either found below, or ends as it finds its name gone
        for path in sorted(self._places.runtime.glob(f"zygote-{fingerprint()}-*.sock")):
            try:
                self._ready[path] = ZygoteClient.find(path)
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError as error:
                _log.error("the zygote at %s cannot be reached: %s", path, error)

    def get(self, modules: tuple[str, ...]) -> ZygoteClient | None:
        """The one that has these loaded; where there is none, None, and it is started."""
        if not modules:
            return None
        path = self._place(modules)
        zygote = self._ready.get(path)
        if zygote is not None and not zygote.closed:
            return zygote
        if zygote is None and not any(path in known for known in (self._due, self._coming, self._unfit)):
            self._due.add(path)
            self._loop.later(_AFTER_S, partial(self._start, path, modules))
        return None

    def _place(self, modules: Sequence[str]) -> Path:
        """Its socket. A package that is installed, removed or replaced changes it, so that no run is given an old one."""
        try:
            installed = Path(sysconfig.get_path("purelib")).stat().st_mtime_ns
        except OSError:
            installed = 0
        kind = "\0".join([*modules, str(installed)])
        key = hashlib.blake2s(kind.encode(errors="surrogatepass"), digest_size=4).hexdigest()
        return self._places.zygote_socket(f"{fingerprint()}-{key}")

    def _start(self, path: Path, modules: tuple[str, ...]) -> None:
        self._due.discard(path)
        if self._leaving:
            return
        try:
            zygote = ZygoteClient.start(_coming(path), self._places.zygote_log, path, modules)
        except (OSError, ValueError) as error:
            _log.error("no zygote with %s can be had: %s", ", ".join(modules), error)
            self._give_up(path, modules)
            return
        self._coming[path] = zygote
        self._loop.watch(zygote.fileno(), partial(self._hear, path, modules))

    def _hear(self, path: Path, modules: tuple[str, ...]) -> None:
        """Its first word comes when all is loaded; it ends without one where something cannot be."""
        zygote = self._coming.get(path)
        if zygote is None or not (zygote.receive() or zygote.closed):
            return
        self._loop.unwatch(zygote.fileno())
        del self._coming[path]
        if zygote.closed:
            _log.info("no run is given %s loaded beforehand; zygote.log says why", ", ".join(modules))
            self._give_up(path, modules)
            zygote.close()
            self._ended(zygote)
            _coming(path).unlink(missing_ok=True)
            return
        _log.info("the zygote %s has loaded %s", zygote.pid, ", ".join(modules))
        self._ready[path] = zygote
        self._arrived(zygote)

    def _give_up(self, path: Path, modules: tuple[str, ...]) -> None:
        self._unfit[path] = modules
        self._loop.later(_RETRY_S, partial(self._try_again, path))

    def _try_again(self, path: Path) -> None:
        self._unfit.pop(path, None)

    def lost(self, dead: ZygoteClient) -> None:
        """It has ended, or has only let go of a supervisor that did not listen for long."""
        self._ready.pop(dead.path, None)
        try:
            again = ZygoteClient.find(dead.path)
        except OSError:
            dead.path.unlink(missing_ok=True)
        else:
            self._ready[dead.path] = again
            self._arrived(again)

    def leave(self) -> None:
        """The supervisor means to end: who is not ready yet has no run, and is killed."""
        self._leaving = True
        for path, zygote in self._coming.items():
            self._loop.unwatch(zygote.fileno())
            zygote.kill()
            self._ended(zygote)
            _coming(path).unlink(missing_ok=True)
        self._coming.clear()


def _coming(path: Path) -> Path:
    return path.with_name(path.name + _COMING)
