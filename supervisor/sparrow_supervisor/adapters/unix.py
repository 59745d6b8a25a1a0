"""The Unix socket: its owner's alone, from the first moment on."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path

from sparrow_mp.errors import StateError
from sparrow_mp.paths import check_address, secure_folder
from sparrow_supervisor.adapters.peers import unix_peer

_BACKLOG = 4096
_PATIENCE_S = 1.0


class UnixListener:
    """Listens on a path. Raises StateError, with the remedy, where it cannot.

    ``guarded`` tells that the path is in the state folder, whose lock our supervisor holds: who listens there still is
    the adapters of one that is gone, and will notice. Elsewhere another supervisor may be at home.
    """

    def __init__(self, path: Path, guarded: bool) -> None:
        self.path = path
        self._identity: tuple[int, int] | None = None
        check_address(path, "the NDJSON socket")
        secure_folder(path.parent)
        self._check_place(guarded)
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind()
        except OSError as error:
            self.listening.close()
            raise StateError(
                f"cannot listen on {path}: {error.strerror or error}; choose another place with `[ndjson] unix`"
            ) from None
        self.listening.setblocking(False)
        self.address = os.fspath(path)

    def refusal(self, client: socket.socket) -> str | None:
        """Why this client may not read; None where it may."""
        try:
            uid = unix_peer(client)
        except OSError:
            uid = -1
        return None if uid == os.geteuid() else f"this socket serves the processes of user {os.geteuid()} only"

    def is_there(self, client: socket.socket) -> bool:
        """Whether a client that closed its side still has the other one: on a Unix socket the loop is told if not."""
        return True

    def close(self) -> None:
        """Stop listening, and remove the socket if it is still this one."""
        self.listening.close()
        try:
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._identity:
                self.path.unlink()
        except OSError:
            pass  # it is gone already, or its folder is

    def abandon(self) -> None:
        """Stop listening, and leave the file: a next supervisor may be putting its own there just now."""
        self.listening.close()

    def _check_place(self, guarded: bool) -> None:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateError(f"cannot look at {self.path}: {error.strerror}") from None
        if not stat.S_ISSOCK(found.st_mode):
            raise StateError(f"{self.path} is not a socket; move it away, or choose another place with `[ndjson] unix`")
        if found.st_uid != os.geteuid():
            raise StateError(
                f"{self.path} belongs to user {found.st_uid}; remove it, or choose another place with `[ndjson] unix`"
            )
        patience = time.monotonic() + _PATIENCE_S
        while not guarded and _answers(self.path):
            if time.monotonic() > patience:
                raise StateError(
                    f"another process serves {self.path} (`ss -lxp` shows which); end it, or choose another place with"
                    " `[ndjson] unix`"
                )
            time.sleep(0.05)

    def _bind(self) -> None:
        # Under a name of its own, with nobody but us allowed from the start, listening, and only then at its place:
        # who finds it there finds it ready. The descriptor stands for the folder, since an address has 107 bytes.
        name = f".sparrow-{os.getpid()}.sock"
        folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mask = os.umask(0o177)
        try:
            try:
                os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                pass
            self.listening.bind(f"/proc/self/fd/{folder}/{name}")
            self.listening.listen(_BACKLOG)
            made = os.stat(name, dir_fd=folder, follow_symlinks=False)
            self._identity = (made.st_dev, made.st_ino)
            os.rename(name, self.path.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.umask(mask)
            os.close(folder)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(0.2)
        try:
            trial.connect(os.fspath(path))
        except OSError:
            return False
        return True
