"""circus: its control socket (DEALER) and its event socket (SUB), spoken to with plain pyzmq."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from typing import Any

import zmq

from benchmarks.daemon import milliseconds_since
from benchmarks.peers.install import pinned, program
from benchmarks.peers.peer import Peer, Work, grown_by, size, until
from benchmarks.rows import Failed

_CONFIGURATION = """
[circus]
endpoint = ipc://{folder}/control
pubsub_endpoint = ipc://{folder}/events
check_delay = 0.1
"""
_WATCHER = """
[watcher:{name}]
cmd = {command}
numprocesses = {count}
autostart = False
respawn = False
stdout_stream.class = FileStream
stdout_stream.filename = {folder}/{name}.log
"""


class Circus(Peer):
    name = f"circus {pinned('pypi')['circus']}"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.note = (
            "circus: its check_delay is 0.1 s, since it notices an end no sooner, and with its default only every 5 s;"
            " the runs are one watcher's processes"
        )
        script = program("circusd")
        settings = work.folder / "ini"
        watchers = {"echo": ("/bin/echo here", 1), "true": ("/bin/true", work.runs)}
        watchers.update({name: (" ".join(printer.argv), 1) for name, printer in work.printers.items()})
        settings.write_text(
            _CONFIGURATION.format(folder=work.folder)
            + "".join(
                _WATCHER.format(folder=work.folder, name=name, command=command, count=count)
                for name, (command, count) in watchers.items()
            ),
            encoding="utf-8",
        )
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._daemon = subprocess.Popen(
            [str(script), str(settings)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until((work.folder / "control").exists, "circus's socket")
        self._control, self._events = self._context.socket(zmq.DEALER), self._context.socket(zmq.SUB)
        self._events.set(zmq.SUBSCRIBE, b"watcher.")
        for connection, address in ((self._control, "control"), (self._events, "events")):
            connection.set(zmq.RCVTIMEO, 30_000)
            connection.connect(f"ipc://{work.folder}/{address}")
        until(lambda: self._ask("numwatchers").get("status") == "ok", "circus's answer")

    def first_line(self) -> float:
        log = self.work.folder / "echo.log"
        before = size(log)
        start = time.perf_counter()
        self._ask("start", name="echo")
        grown_by(log, len(b"here\n"), before, "the line of circus's echo")
        taken = milliseconds_since(start)
        self._hear("echo", "stop", 1)
        return taken

    def runs_a_second(self) -> float:
        start = time.perf_counter()
        self._ask("start", name="true")
        self._hear("true", "reap", self.work.runs)
        taken = time.perf_counter() - start
        self._hear("true", "stop", 1)
        return self.work.runs / taken

    def lines_a_second(self, printer: str) -> float:
        log, what = self.work.folder / f"{printer}.log", self.work.printers[printer]
        before = size(log)
        start = time.perf_counter()
        self._ask("start", name=printer)
        grown_by(log, what.size, before, "the last line in circus's log file")
        taken = time.perf_counter() - start
        self._hear(printer, "stop", 1)
        return what.count / taken

    def _ask(self, command: str, **properties: object) -> dict[str, Any]:
        self._control.send(json.dumps({"id": uuid.uuid4().hex, "command": command, "properties": properties}).encode())
        try:
            answer: dict[str, Any] = json.loads(self._control.recv())
        except zmq.Again:
            raise Failed(f"circus did not answer {command}") from None
        if answer.get("status") != "ok":
            raise Failed(f"circus refused {command}: {answer.get('reason')}")
        return answer

    def _hear(self, watcher: str, event: str, count: int) -> None:
        """Its next so many events of this kind."""
        wanted = f"watcher.{watcher}.{event}".encode()
        while count:
            try:
                count -= self._events.recv_multipart()[0] == wanted
            except zmq.Again:
                raise Failed(f"circus told nothing of the {event} of {watcher}") from None

    def close(self) -> None:
        self._context.destroy(linger=0)
        self._daemon.terminate()
        self._daemon.wait(20)
