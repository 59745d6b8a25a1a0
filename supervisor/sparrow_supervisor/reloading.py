"""The settings while the supervisor runs: read again when somebody asks, at SIGHUP, and when the file has changed.

The file is looked at once a second, with one ``stat``. That sees an editor's new file in place of the old one, a link that
points elsewhere, and a folder that is made later, which a watch on a file does not. It is read when it has been the same for
two looks: a program that writes it in place first makes it empty.

What is wrong is told and changes nothing: the last good settings stay in force. So they do where the file is gone, which may
be a disk that is not there, until somebody asks to have them read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparrow_mp.config import Config, changed, load_config
from sparrow_mp.errors import ConfigError
from sparrow_mp.settings import Changes
from sparrow_supervisor.core.inputs import RoomChanged

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor

_log = logging.getLogger(__name__)

_LOOK_S = 1.0

Seen = tuple[int, ...] | str
"""What tells one state of the file from another; words where there is none to be seen."""
_NONE: Seen = "there is none"


class Reloading:
    """Looks after the settings, with what the reactor has in hand."""

    def __init__(self, reactor: Reactor, env: Mapping[str, str] = os.environ) -> None:
        self._reactor = reactor
        self._env = env
        self._began_with = reactor.config
        self._fault: str | None = None
        self._seen = self._look()
        self._of_a_file = self._seen != _NONE
        self._read: Seen = ""  # so it is read once more: it may have changed since it was read for the start
        reactor.loop.later(_LOOK_S, self._watch)

    @property
    def problems(self) -> list[str]:
        """What is wrong with the settings, and what becomes of it."""
        if self._fault is None:
            return []
        return [self._fault]

    @property
    def needs_restart(self) -> list[str]:
        """The settings that have changed and count from the next start on."""
        return changed(self._began_with, self._reactor.config, Changes.AT_START)

    def reload(self, why: str) -> list[str]:
        """Read the settings again and act on them; the names of those that have changed. Raises ConfigError."""
        reactor = self._reactor
        self._read = self._seen = self._look()
        self._of_a_file = self._seen != _NONE
        try:
            new = load_config(reactor.places.config, self._env)
        except ConfigError as error:
            self._fault = (
                "the settings cannot be read again, and the earlier ones stay in force, but the next start will fail: "
                + error.message
            )
            _log.error("%s: the settings are wrong, and the earlier ones stay in force: %s", why, error.message)
            raise
        self._fault = None
        old, reactor.config = reactor.config, new
        names = changed(old, new)
        if names:
            _log.info("%s; changed: %s", why, ", ".join(names))
        if late := changed(old, new, Changes.AT_START):
            _log.warning("%s: takes effect at the next start", ", ".join(late))
        self._act(old, new)
        return names

    def try_reload(self, why: str) -> None:
        """The same, where nobody waits for an answer: the log and the status tell what is wrong."""
        try:
            self.reload(why)
        except ConfigError:
            pass  # it was told

    def _act(self, old: Config, new: Config) -> None:
        """Tell whoever does not look at the settings each time it needs one."""
        reactor = self._reactor
        logging.getLogger().setLevel(new.supervisor.log_level.upper())
        reactor.recorder.part_bytes = new.supervisor.part_bytes
        reactor.feed(RoomChanged(reactor.most_runs, new.supervisor.max_queue))
        if new.supervisor.restart != old.supervisor.restart:
            reactor.announce()

    def _watch(self) -> None:
        self._reactor.loop.later(_LOOK_S, self._watch)
        before, self._seen = self._seen, self._look()
        if self._seen != before or self._seen == self._read:
            return
        path = self._reactor.places.config
        if self._seen == _NONE and self._of_a_file:
            self._read = self._seen
            self._fault = f"{path} is gone; its settings stay in force until the next start or `sparrow reload`"
            _log.warning("%s", self._fault)
        else:
            self.try_reload(f"{path} has changed")

    def _look(self) -> Seen:
        try:
            found = self._reactor.places.config.stat()
        except FileNotFoundError:
            return _NONE
        except (OSError, ValueError) as error:
            return str(error)
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
