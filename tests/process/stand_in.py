"""A supervisor that only records and publishes what it is told to: real sockets, files and locks, and no runs.

It lets the client's tests stage what is hard to have from the real one: a request that is never answered, an event that is
recorded and never published, a death between the two. Ops that begin with ``x.`` are its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import zmq

from sparrow_mp import wire
from sparrow_mp.events import Tokens
from sparrow_mp.paths import find_places


class StandIn:
    def __init__(self) -> None:
        self.places = find_places()
        self.router: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self.pub: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        socket: zmq.Socket[bytes]
        for socket, address in ((self.router, self.places.control), (self.pub, self.places.events)):
            socket.setsockopt(zmq.LINGER, 0)
            Path(address.removeprefix("ipc://")).unlink(missing_ok=True)
            socket.bind(address)

    def serve(self) -> None:
        while True:
            frames = self.router.recv_multipart()
            request = json.loads(frames[-1])
            reply = self.answer(request)
            if reply is not None:
                self.router.send_multipart([*frames[:-1], reply])
            if request["op"] == "shutdown":
                time.sleep(0.3)  # its runs end
                self.places.address_file.unlink()
                sys.exit()

    def answer(self, request: dict) -> bytes | None:
        op = request["op"]
        if op == "submit":
            run = str(uuid.uuid4())
            folder = self.places.transcript(run)
            folder.mkdir(parents=True)
            self.places.run_folder(run).mkdir(parents=True)
            (folder / "inputs.json").write_text(json.dumps({"name": request.get("name"), "task": request["task"]}))
            self.emit(run, [{"type": "RunStarted", "task": request["task"], "agent": "none"}])
            return wire.ok(run=run, request=request)
        if op == "list":
            return wire.ok(runs=[self.record(run) for run in os.listdir(self.places.transcripts)])
        if op == "get":
            fits = [run for run in os.listdir(self.places.transcripts) if run.startswith(request["run"])]
            if not fits:
                return wire.refused("no_such_run", f"No active run with id {request['run']}")
            return wire.ok(run=self.record(fits[0]))
        if op == "status":
            return wire.ok(pid=os.getpid())
        if op == "x.emit":
            self.emit(request["run"], request["events"], publish=request.get("publish", True))
            if request.get("die"):
                os.kill(os.getpid(), 9)
            return wire.ok()
        if op in ("x.hang", "events"):
            if op == "events" and (self.places.state / "answer").exists():
                return wire.ok(events=[], next=0)
            (self.places.state / "asked").touch()
            return None
        if op == "x.nonsense":
            return b"nonsense"
        if op == "shutdown":
            return wire.ok(pid=os.getpid())
        return wire.refused("bad_request", f"unknown op {op}")

    def emit(self, run: str, events: list[dict], *, publish: bool = True) -> None:
        folder = self.places.transcript(run)
        path = folder / "events.jsonl"
        seq = path.read_bytes().count(b"\n") if path.exists() else 0
        for event in events:
            seq += 1
            ts = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            line = json.dumps({"type": event.pop("type"), "run": run, "seq": seq, "ts": ts, **event}).encode()
            with path.open("ab") as file:
                file.write(line + b"\n")
            kind = json.loads(line)["type"]
            if kind == "RunFinished":
                (folder / "meta.json").write_text("{}")
                self.places.run_folder(run).rmdir()
            if publish:
                self.pub.send_multipart([f"{run}/{kind}".encode(), line])

    def record(self, run: str) -> wire.RunRecord:
        folder = self.places.transcript(run)
        lines = (folder / "events.jsonl").read_bytes().splitlines()
        over = (folder / "meta.json").exists()
        return wire.RunRecord(
            run=run,
            status="completed" if over else "running",
            engine="shell",
            agent="none",
            task="t",
            cwd="/",
            labels=[],
            created="2026-11-22T12:00:00.000000Z",
            events=len(lines),
            cost_usd=0.0,
            tokens=Tokens(),
        )


def main(ready: int = -1) -> None:
    places = find_places()
    if os.environ.get("STAND_IN") == "dies":
        sys.exit("the roof fell in")
    if os.environ.get("STAND_IN") == "refuses":
        tell(ready, {"ok": False, "message": "the config is wrong", "exit_code": 2})
        sys.exit(2)
    for folder in (places.state, places.runtime, places.transcripts, places.runs):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(places.lock, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(20):  # somebody may be looking whether it is held, and hold it for that moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            time.sleep(0.01)
    else:
        tell(ready, {"ok": False, "message": "held by another", "exit_code": 1})
        sys.exit(1)
    places.address_file.unlink(missing_ok=True)
    time.sleep(0.1)  # it reads its index, adopts runs …
    server = StandIn()
    with (places.state / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    told = {"version": "0", "pid": os.getpid(), "control": places.control, "events": places.events}
    places.address_file.write_text(json.dumps(told))
    tell(ready, {"ok": True})
    server.serve()


def tell(ready: int, word: dict) -> None:
    if ready >= 0:
        with os.fdopen(ready, "w") as pipe:
            pipe.write(json.dumps(word) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[sys.argv.index("--ready-fd") + 1]) if "--ready-fd" in sys.argv else -1)
