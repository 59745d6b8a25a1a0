"""Who asks: the session of the process at the other end, so that all commands of one terminal, script or run are one client."""

from __future__ import annotations

import os

import zmq


def client_of(frame: zmq.Frame) -> str:
    """The client that has sent this; empty where the kernel does not say. Same-user processes are trusted: it is for
    fairness, and no barrier.
    """
    try:
        address = str(frame.get("Peer-Address"))  # of an ipc socket: localhost:UID:GID:PID
        pid = int(address.rsplit(":", 1)[1])
    except (zmq.ZMQError, IndexError, ValueError):
        return ""
    try:
        return f"session {os.getsid(pid)}"
    except OSError:
        return f"process {pid}"  # it has gone, or is in another pid namespace
