"""A run that does what it likes in sparrow's own folders hurts itself at most."""

from __future__ import annotations

import json
import os
import socket

import pytest

from tests.support import processes
from tests.support.house import House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance


def works(house: House) -> None:
    """The supervisor, its zygote and its adapters still do what they are for."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        eventually(lambda: clients(house) == 0, what="the leaving of who was there before")

        def connected() -> bool:
            unix = house.status()["unix"]  # new adapters are known by their pid before they listen
            if unix:
                client.connect(unix)
            return bool(unix)

        eventually(connected, what="the adapters")
        eventually(lambda: clients(house) == 1, what="being let in")  # what was said before that it need not hear
        run = house.detach("--", "echo", "well")
        assert house.outcome(run)["status"] == "completed"
        heard = b""
        # Its own end: that of the run before it may be heard as well.
        while not any(b"RunFinished" in line and run.encode() in line for line in heard.splitlines()):
            more = client.recv(65536)
            assert more, heard
            heard += more


def clients(house: House) -> int:
    """How many clients the Unix socket has."""
    return int(house.status()["clients"]["unix"])


def in_its_folder(house: House, script: str) -> str:
    """A run that does this in its own folder, which it finds, since its monitor has the outbox open."""
    find = 'cd "$(readlink /proc/$PPID/fd/* | grep -m1 /outbox | sed s,/outbox.*,,)"'
    return house.detach("--", "sh", "-c", f"{find} && {script}")


@pytest.mark.parametrize(
    "script",
    [
        "for f in exit.json exit.new reaped reaped.new; do rm -f $f; mkfifo $f; done",
        "for f in exit.json reaped; do rm -f $f; mkdir $f; done",
        "for f in exit.json exit.new reaped reaped.new; do ln -s /dev/zero $f; done",
        'echo kept > "$TMPDIR/mine"; for f in exit.json exit.new reaped; do ln -sf "$TMPDIR/mine" $f; done',
        "rm -f alive outbox; mkfifo alive outbox",
        "mkfifo cgroup",
        "mkfifo cgroup; kill -9 $PPID",
        'echo "$TMPDIR/sparrow-${PWD##*/}" > cgroup; mkdir -p "$TMPDIR/sparrow-${PWD##*/}"; kill -9 $PPID',
        "rm -f outbox; head -c 20000000 /dev/urandom > outbox",
        "head -c 20000 /dev/urandom | dd of=outbox bs=1 seek=16 conv=notrunc 2>/dev/null; kill -9 $PPID",
        "for f in exit.json reaped; do mkfifo $f; done; kill -9 $PPID",
        'for f in exit.json reaped; do truncate -s 100G $f; done; kill -9 $PPID',
        'rm -rf "$PWD"',
        'd=$PWD; cd ..; rm -rf "$d"; mkfifo "$d"',
        'cd "$SPARROW_STATE_DIR/transcripts/${PWD##*/}" && mkfifo meta.json meta.new',
        'cd "$SPARROW_STATE_DIR/transcripts/${PWD##*/}" && rm events.jsonl && mkfifo events.jsonl',
        'cd "$SPARROW_STATE_DIR/transcripts/${PWD##*/}" && rm events.jsonl && ln -s /dev/zero events.jsonl',
        'rm -rf "$SPARROW_STATE_DIR/transcripts/${PWD##*/}"',
    ],
    ids=lambda script: script[-40:],
)  # fmt: skip
def test_what_it_puts_in_place_of_our_files_stops_nobody_else(shared: House, script: str):
    shared.may_complain = True  # of this run
    run = in_its_folder(shared, script)
    eventually(lambda: shared.record(run)["status"] not in ("starting", "running"), 40, "its end")
    works(shared)


def test_its_links_lead_nobody_to_write_elsewhere(shared: House):
    mine = shared.write("mine", "kept")
    run = in_its_folder(shared, f"for f in exit.json exit.new reaped reaped.new; do ln -sf {mine} $f; done")
    shared.outcome(run)
    assert mine.read_text() == "kept"


def test_what_it_leaves_stops_no_later_supervisor(house: House):
    run = house.detach("--", "sh", "-c", "echo up; read line")
    house.says(run, "up")
    ended = house.detach("--", "true")
    house.outcome(ended)
    house.kill_supervisor()
    folder = house.places.run_folder(run)
    for name in ("exit.json", "reaped", "spec.json"):
        os.mkfifo(folder / name)
    (house.places.endpoints / "folder").mkdir()
    (house.places.endpoints / "file").write_text("")
    os.mkfifo(house.places.runs / "pipe")
    (house.places.runs / "not-a-run").mkdir()
    house.start()
    works(house)
    assert not (house.places.runs / "pipe").exists()
    (house.places.endpoints / "folder").rmdir()
    house.sparrow("inject", run, "x").ok()
    assert house.outcome(run)["status"] == "completed"


def test_a_client_is_told_what_cannot_be_read(house: House):
    run = house.detach("--", "true")
    house.outcome(run)
    record = house.places.transcript(run) / "events.jsonl"
    record.unlink()
    os.mkfifo(record)
    for verb in ("logs", "replay"):
        done = house.sparrow(verb, run, timeout=20)
        assert done.code != 0, done
        assert "Traceback" not in done.err
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(eventually(lambda: house.status()["unix"], what="the adapters"))
        client.sendall(json.dumps({"run": run, "since": 0}).encode() + b"\n")
        assert b'"Error"' in client.recv(65536)
    works(house)


def test_adapters_start_beside_a_record_that_cannot_be_read(house: House):
    run = house.detach("--", "sh", "-c", "echo up; read line")
    house.says(run, "up")
    record = house.places.transcript(run) / "events.jsonl"
    record.rename(record.with_suffix(".kept"))
    record.symlink_to("/dev/zero")
    told = house.status()
    processes.kill(told["adapters_pid"])
    eventually(lambda: house.status()["adapters_pid"] != told["adapters_pid"], what="new adapters")
    works(house)
    record.with_suffix(".kept").replace(record)
    house.sparrow("inject", run, "x").ok()
    house.outcome(run)
