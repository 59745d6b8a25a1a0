"""supervisord: XML-RPC over its Unix socket, one connection; its log files as they are by default."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
import xmlrpc.client
from typing import Any

from benchmarks.daemon import milliseconds_since
from benchmarks.peers.install import pinned, program
from benchmarks.peers.peer import Peer, Work, grown_by, size, until
from benchmarks.rows import Failed

_LINE = b"here\n"
_CONFIGURATION = """
[unix_http_server]
file={folder}/sock
[supervisord]
logfile={folder}/log
pidfile={folder}/pid
childlogdir={folder}
nodaemon=true
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:echo]
command=/bin/echo here
autostart=false
autorestart=false
startsecs=0
stdout_logfile={folder}/echo.log
[program:true]
command=/bin/true
process_name=%(process_num)04d
numprocs={runs}
autostart=false
autorestart=false
startsecs=0
"""
_PRINTER = """
[program:{name}]
command={command}
autostart=false
autorestart=false
startsecs=0
stdout_logfile={folder}/{name}.log
stdout_logfile_maxbytes=0
"""


class Supervisord(Peer):
    name = f"supervisord {pinned('pypi')['supervisor']}"

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self.note = "supervisord: its plain log file is not structured; an end is recorded when its own log has it"
        script = program("supervisord")
        settings = work.folder / "conf"
        printers = [
            _PRINTER.format(folder=work.folder, name=name, command=" ".join(printer.argv))
            for name, printer in work.printers.items()
        ]
        text = _CONFIGURATION.format(folder=work.folder, runs=work.runs) + "".join(printers)
        settings.write_text(text, encoding="utf-8")
        self._daemon = subprocess.Popen(
            [str(script), "-c", str(settings)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._log = work.folder / "log"
        until((work.folder / "sock").exists, "supervisord's socket")
        self._transport = _Transport(str(work.folder / "sock"))
        self._ask: Any = xmlrpc.client.ServerProxy("http://localhost", transport=self._transport).supervisor

    def first_line(self) -> float:
        log = self.work.folder / "echo.log"
        before, ends = size(log), self._ends()
        start = time.perf_counter()
        self._ask.startProcess("echo", False)
        grown_by(log, len(_LINE), before, "the line of supervisord's echo")
        taken = milliseconds_since(start)
        until(lambda: self._ends() == ends + 1, "the end of supervisord's echo")
        return taken

    def runs_a_second(self) -> float:
        before = self._ends()
        start = time.perf_counter()
        self._ask.startProcessGroup("true", False)
        until(lambda: self._ends() >= before + self.work.runs, "the last end in supervisord's log")
        taken = time.perf_counter() - start
        if self._ends() != before + self.work.runs:
            raise Failed("supervisord recorded more ends than there were runs")
        return self.work.runs / taken

    def lines_a_second(self, printer: str) -> float:
        log, what = self.work.folder / f"{printer}.log", self.work.printers[printer]
        before, ends = size(log), self._ends()
        start = time.perf_counter()
        self._ask.startProcess(printer, False)
        grown_by(log, what.size, before, "the last line in supervisord's log file")
        taken = time.perf_counter() - start
        until(lambda: self._ends() == ends + 1, "the end of supervisord's command")
        return what.count / taken

    def _ends(self) -> int:
        """How many ends its log tells of."""
        return self._log.read_bytes().count(b" exited: ")

    def close(self) -> None:
        self._transport.close()
        self._daemon.terminate()
        self._daemon.wait(20)


class _Transport(xmlrpc.client.Transport):
    """XML-RPC over a Unix socket, which stays connected."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: object) -> http.client.HTTPConnection:
        if self._connection[1] is None:
            self._connection = ("localhost", _Connection(self._path))
        assert isinstance(self._connection[1], http.client.HTTPConnection)
        return self._connection[1]


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)
