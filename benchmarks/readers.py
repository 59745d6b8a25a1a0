"""NDJSON clients: ``python -m benchmarks.readers SOCKET CLIENTS EVENTS`` says ``there``, reads, and says ``all``.

Each reads everything until it has had so many Messages and no more; none of them decodes more than it must to count.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time

_MARK = b'"type":"Message"'
_GREETING_S = 0.3
"""The adapters wait a moment before the first byte, to see whether a browser has called."""


def main(path: str, clients: int, events: int) -> None:
    """Read until all have everything."""
    waiting = selectors.DefaultSelector()
    left: dict[socket.socket, int] = {}
    tails: dict[socket.socket, bytes] = {}
    for _ in range(clients):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(path)
        waiting.register(connection, selectors.EVENT_READ, connection)
        left[connection], tails[connection] = events, b""
    time.sleep(_GREETING_S)
    sys.stdout.write("there\n")
    sys.stdout.flush()
    while left:
        for key, _ in waiting.select():
            reader: socket.socket = key.data
            data = reader.recv(1 << 18)
            if not data:
                raise SystemExit("a client was cut off")
            whole = tails[reader] + data
            end = whole.rfind(b"\n") + 1
            left[reader] -= whole.count(_MARK, 0, end)
            tails[reader] = whole[end:]
            if left[reader] < 0:
                raise SystemExit("a client got an event twice")
            if left[reader] == 0:
                waiting.unregister(reader)
                reader.close()
                del left[reader]
    sys.stdout.write("all\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
