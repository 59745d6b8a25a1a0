"""Where the local model server listens: one file in the runtime folder, which the run that serves holds locked.

The lock says that the process lives, the file what to ask it by. The key in it is for the owner's programs alone.
"""

from __future__ import annotations

import fcntl
import os
import time
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

from sparrow_mp.paths import Places
from sparrow_mp.regular import open_regular

_NAME = "model.json"
_MOST_BYTES = 65536
_PATIENCE_S = 1.0
"""How long a claim is tried for: whoever looks whether the server lives holds the lock for a moment."""


class Endpoint(NamedTuple):
    """A model server that speaks OpenAI's protocol. ``context`` is how many tokens a conversation may have; ``idle`` after how
    many seconds without a request it ends (0: never); ``small`` says that it is the model for trying things out, which is not
    up to real work; ``run`` is the id of the run that serves.
    """

    base_url: str
    model: str
    api_key: str
    context: int
    idle: float
    small: bool
    run: str

    def __repr__(self) -> str:
        """Without the key, which no log is to have."""
        return f"Endpoint({self.base_url!r}, {self.model!r})"


class Taken(Exception):
    """Another run serves already."""


class Claim:
    """That this process is the model server of these places. Raises Taken, OSError."""

    def __init__(self, places: Places) -> None:
        self._fd = open_regular(places.runtime / _NAME, os.O_RDWR | os.O_CREAT)
        try:
            _lock(self._fd)
            os.fchmod(self._fd, 0o600)
            os.ftruncate(self._fd, 0)
        except BaseException:  # whatever it is goes on up, once the file is closed
            os.close(self._fd)
            raise

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def tell(self, endpoint: Endpoint) -> None:
        """From now on it answers there."""
        os.pwrite(self._fd, msgspec.json.encode(endpoint._asdict()), 0)

    @property
    def asked_for(self) -> int:
        """Changes whenever somebody has looked for the server in order to use it."""
        return os.fstat(self._fd).st_mtime_ns


def endpoint(places: Places, *, to_use: bool = False) -> Endpoint | None:
    """Where the local model server listens; None where there is none, or it is not ready. Does not wait.

    ``to_use`` keeps it from ending meanwhile because nobody asks it anything.
    """
    try:
        fd = open_regular(places.runtime / _NAME)
    except OSError:
        return None
    try:
        if not _is_held(fd):
            return None
        told = msgspec.json.decode(os.pread(fd, _MOST_BYTES, 0), type=dict[str, Any])
        if to_use:
            os.utime(fd)
        return msgspec.convert([told[field] for field in Endpoint._fields], Endpoint)
    except (OSError, msgspec.MsgspecError, KeyError):
        return None
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise Taken from None
            time.sleep(0.02)


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
