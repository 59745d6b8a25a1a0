"""What is said to systemd and asked of it: datagrams, jobs, unit files."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from sparrow_mp import service
from sparrow_mp.paths import find_places
from sparrow_supervisor.journal import entry, is_journal, priority
from sparrow_supervisor.notify import Notify
from sparrow_supervisor.rebuild import open_index
from sparrow_supervisor.systemd import Unit, keeps_runs, summary

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("abstract", [False, True])
def test_one_datagram_is_sent_wherever_the_socket_is(tmp_path: Path, abstract: bool):
    name = str(tmp_path / "notify") if not abstract else f"@sparrow-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name.replace("@", "\0"))
        heard.settimeout(20)
        env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
        notify = Notify.take(env)
        assert env == {"HOME": "/"}
        assert notify.watchdog_s == 3.0
        notify.tell(READY=1, STATUS="two\nlines")
        assert heard.recv(100) == b"READY=1\nSTATUS=two lines\n"
        waiting = threading.Thread(target=notify.barrier)
        waiting.start()
        data, fds, _, _ = socket.recv_fds(heard, 100, 1)
        assert (data, waiting.is_alive()) == (b"BARRIER=1", True)
        os.close(fds[0])
        waiting.join(20)
        assert not waiting.is_alive()


def test_a_start_that_takes_long_asks_systemd_to_wait_and_not_too_often(tmp_path: Path):
    """Taking the runs from their transcripts may take minutes."""
    places = find_places({"SPARROW_STATE_DIR": str(tmp_path)})
    for number in range(3):
        (places.transcripts / str(number)).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        unit = Unit(Notify.take({"NOTIFY_SOCKET": str(tmp_path / "notify")}))
        open_index(places, goes_on=unit.goes_on).close()
        assert heard.recv(100) == b"EXTEND_TIMEOUT_USEC=60000000\n"
        with pytest.raises(BlockingIOError):
            heard.recv(100)


@pytest.mark.parametrize(
    "env", [{}, {"NOTIFY_SOCKET": "/nowhere"}, {"NOTIFY_SOCKET": "vsock:2:1", "WATCHDOG_USEC": "x"}]
)
def test_that_nobody_listens_is_no_fault(env: dict[str, str]):
    notify = Notify.take(env)
    notify.tell(READY=1)
    notify.barrier()
    assert notify.watchdog_s is None


def test_the_watchdog_of_another_process_is_not_ours():
    assert Notify.take({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).watchdog_s is None


def record(message: str, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("sparrow", level, "/a/file.py", 7, message, args, None)


def test_an_entry_of_the_journal_has_its_priority_and_its_run():
    said = record("run %s: started by %s", "1b0c", "me", level=logging.WARNING)
    fields = dict(line.split(b"=", 1) for line in entry(said, said.getMessage()).splitlines())
    assert fields[b"MESSAGE"] == b"run 1b0c: started by me"
    assert fields[b"SPARROW_RUN"] == b"1b0c"
    assert fields[b"PRIORITY"] == b"4"
    assert b"SPARROW_RUN" not in entry(record("no run %s", "x"), "no run x")
    assert [priority(level) for level in (50, 40, 30, 20, 10, 5)] == [2, 3, 4, 6, 7, 7]


def test_several_lines_are_one_entry():
    data = entry(record("x"), "one\nPRIORITY=0")
    assert data.startswith(b"MESSAGE\n" + struct.pack("<Q", 14) + b"one\nPRIORITY=0\nPRIORITY=6\n")


def test_the_journal_is_known_by_its_stream():
    with open(os.devnull) as file:
        found = os.fstat(file.fileno())
        assert is_journal({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}, file.fileno())
        assert not is_journal({"JOURNAL_STREAM": "1:2"}, file.fileno())
        assert not is_journal({}, file.fileno())


@pytest.mark.parametrize(
    ("jobs", "keeps"),
    [
        ("12 sparrow.service restart running\n", True),
        ("12 sparrow.service try-restart running\n", True),
        ("12 sparrow.service stop running\n3 sparrow-keep.target start waiting\n", True),
        ("12 sparrow.service stop running\n", False),
        ("12 sparrow.service stop running\n13 sparrow-runs.service stop waiting\n", False),
        ("12 sparrow.service restart running\n13 sparrow-runs.service restart waiting\n", False),
        ("1 exit.target start waiting\n2 sparrow.service stop running\n3 sparrow-runs.service stop waiting\n", False),
        ("", False),
        ("No jobs running.\n", False),
    ],
)
def test_a_stop_is_told_from_a_restart(jobs: str, keeps: bool):
    assert keeps_runs(jobs) is keeps


def test_the_line_of_what_is_running():
    assert summary([], 0, 0) == "nothing is running"
    assert summary(["a", "b", "c"], 1200, 3) == "1,200 running (a, b, c, …), 3 queued"
    assert summary(["a"], 1, 0) == "1 running (a)"


def test_a_unit_names_this_python_whatever_its_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.executable", '/a b/100%/"py')
    text = service.render("sparrow.service", {"XDG_STATE_HOME": "/my state"})
    assert 'ExecStart="/a b/100%%/\\"py" -P -m sparrow_supervisor --unit\n' in text
    assert 'Environment="XDG_STATE_HOME=/my state"\n' in text
    assert "@" not in text.replace("@system-service", "")
    assert all("@" not in service.render(name, {}).replace("@system-service", "") for name in service.UNITS)
