"""The TCP port: on this machine only, for processes of our user only."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from sparrow_mp.config import split_address
from sparrow_mp.errors import ConfigError, StateError
from sparrow_supervisor.adapters.peers import TcpPeers

_BACKLOG = 4096
_SEND_BUFFER = 256 << 10


class TcpListener:
    """Listens on a loopback address. Raises StateError, with the remedy, where it cannot."""

    def __init__(self, address: str, config: Path) -> None:
        try:
            host, port = split_address(address, config)
        except ConfigError as error:
            raise StateError(error.message) from None
        host = "127.0.0.1" if host == "localhost" else host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._peers = TcpPeers()
        except OSError as error:
            raise StateError(_blind(error.strerror or str(error))) from None
        try:
            self.listening = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._peers.close()
            raise StateError(f"cannot listen on {address}: {error.strerror}; use 127.0.0.1") from None
        try:
            _check(self._peers, host, family)
            self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self.listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self.listening.bind((host, port))
            self.listening.listen(_BACKLOG)
            self.listening.setblocking(False)
            self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        except OSError as error:
            self.close()
            raise StateError(_trouble(address, port, error)) from None
        except StateError:
            self.close()
            raise

    @property
    def port(self) -> int:
        """The port, also where any would do."""
        return int(self.listening.getsockname()[1])

    def refusal(self, client: socket.socket) -> str | None:
        """Why this client may not read; None where it may."""
        if not self._peers.is_ours(client):
            return f"this port serves the processes of user {os.geteuid()} on this machine only"
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Else the kernel keeps megabytes for a client that does not read.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        return None

    def is_there(self, client: socket.socket) -> bool:
        """Whether a client that closed its side still has the other one: the kernel knows whose a socket is, or was."""
        return self._peers.is_ours(client)

    def close(self) -> None:
        """Stop listening."""
        self.listening.close()
        self._peers.close()


def _check(peers: TcpPeers, host: str, family: int) -> None:
    """Raise StateError where peers cannot be told apart: better no port than one that is open, or one that refuses all."""
    with socket.socket(family, socket.SOCK_STREAM) as waiting, socket.socket(family, socket.SOCK_STREAM) as trial:
        waiting.bind((host, 0))
        waiting.listen()
        waiting.settimeout(1.0)
        trial.settimeout(1.0)
        trial.connect(waiting.getsockname()[:2])
        while True:
            accepted, peer = waiting.accept()
            with accepted:
                if peer == trial.getsockname():  # else somebody was quicker than we are
                    if not peers.is_ours(accepted):
                        raise StateError(_blind("it does not know our own connection"))
                    return


def _blind(reason: str) -> str:
    return (
        f"the kernel does not tell whose a TCP connection is ({reason}), so nothing is served on TCP;"
        " use the Unix socket (the kernel module tcp_diag may be missing)"
    )


def _trouble(address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"cannot listen on {address}: another program uses the port (`ss -ltnp sport = :{port}` shows which);"
            " end it, or choose another port with SPARROW_TCP or `[ndjson] tcp` (an empty one switches TCP off);"
            " the Unix socket is served all the same"
        )
    if error.errno == errno.EACCES:
        return (
            f"cannot listen on {address}: {error.strerror}; choose a port over 1023 with SPARROW_TCP or `[ndjson] tcp`"
        )
    return (
        f"cannot listen on {address}: {error.strerror or error}; choose another address with SPARROW_TCP or"
        " `[ndjson] tcp`, such as 127.0.0.1:9337"
    )
