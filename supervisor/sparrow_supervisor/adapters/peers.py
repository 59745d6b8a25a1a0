"""Who is at the other end of a connection. Only the owner of the supervisor may read."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_NLMSG_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states
_SOCKET_ID = struct.Struct("!HH16s16s")  # source and destination: ports, addresses
_ANYWHERE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, no cookie
_ANSWER = struct.Struct("=BBBB48sIIIII")  # family, state, timer, retransmissions, id, expires, queues, uid, inode
_ALL_STATES = 0xFFFFFFFF
_ESTABLISHED = 1
_CLOSE_WAIT = 8
_LISTEN = 10


def unix_peer(client: socket.socket) -> int:
    """The user who connected to a Unix socket. Raises OSError."""
    _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)


class TcpPeers:
    """Asks the kernel, over netlink, to whom the other end of a TCP connection on this machine belongs."""

    def __init__(self) -> None:
        """Raises OSError where the kernel does not answer such questions."""
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        self._netlink.bind((0, 0))
        self._netlink.settimeout(1.0)  # the kernel answers within the call that asks; this only bounds a surprise
        self._sequence = 0

    def close(self) -> None:
        """Give the socket back."""
        self._netlink.close()

    def is_ours(self, client: socket.socket) -> bool:
        """Whether the connection's other end is open in a process of our user.

        A peer that sent and closed at once shows user 0 and inode 0: nobody's. And one whose connection has broken by
        now may have been looked up under a number that somebody else has already: so our end is looked at afterwards.
        """
        try:
            found = self._look_up(client)
            state = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:
            return False
        if found is None:
            return False
        uid, inode = found
        return uid == os.geteuid() and inode != 0 and state in (_ESTABLISHED, _CLOSE_WAIT)

    def _look_up(self, client: socket.socket) -> tuple[int, int] | None:
        """User and inode of the peer's socket, None where there is none. Raises OSError."""
        peer, own = client.getpeername(), client.getsockname()
        wanted = _SOCKET_ID.pack(peer[1], own[1], _packed(peer[0]), _packed(own[0]))
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        body = _REQUEST.pack(client.family, socket.IPPROTO_TCP, 0, _ALL_STATES) + wanted + _ANYWHERE
        head = _NLMSG_HEADER.pack(
            _NLMSG_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, self._sequence, 0
        )
        self._netlink.send(head + body)
        while True:
            answer = self._netlink.recv(8192)
            _, kind, _, sequence, _ = _NLMSG_HEADER.unpack_from(answer)
            if sequence == self._sequence:
                break  # else it is the late answer to an earlier question
        if kind == _NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", answer, _NLMSG_HEADER.size)
            if -code == errno.ENOENT:
                return None
            raise OSError(-code, os.strerror(-code))
        _, state, _, _, found, _, _, _, uid, inode = _ANSWER.unpack_from(answer, _NLMSG_HEADER.size)
        ports = struct.unpack_from("!HH", found)
        # Where there is no such connection the kernel may answer with a socket that listens on the peer's port.
        if state == _LISTEN or ports != (peer[1], own[1]):
            return None
        return uid, inode


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed.ljust(16, b"\0")
