"""A supervisor of the benchmark's own, in a folder that is thrown away, and a plain SUB socket to hear it with."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

from benchmarks.machine import PLACE
from benchmarks.rows import Failed
from sparrow_mp import Client
from sparrow_mp.client import Run
from sparrow_mp.connect import addresses
from sparrow_mp.paths import find_places

ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_MS = 20_000


class Sparrow:
    """A client of the supervisor, and its event socket, subscribed to everything."""

    def __init__(self, client: Client, events: str) -> None:
        self.client = client
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.sub = self._context.socket(zmq.SUB)
        self.sub.set(zmq.LINGER, 0)
        self.sub.set(zmq.RCVHWM, 0)  # what is slow here must not count as lost there
        self.sub.set(zmq.RCVTIMEO, _PATIENCE_MS)
        self._heard: list[bytes] = [b""]
        self.sub.set(zmq.SUBSCRIBE, b"")
        self.sub.connect(events)

    def start(self, function: str, **settings: object) -> Run:
        """A Python run of a function of benchmarks.engines, which finds the settings in its environment."""
        env = dict(os.environ)
        env.update({f"BENCH_{name.upper()}": str(value) for name, value in settings.items()})
        return self.client.submit(f"benchmarks.engines:{function}", engine="python", cwd=ROOT, env=env)

    def hear_only(self, *topics: str) -> None:
        """From in a moment on: topics that begin with one of these. What a subscriber gets costs, and may not be measured."""
        for topic in topics:
            self.sub.set(zmq.SUBSCRIBE, topic.encode())
        for former in self._heard:
            self.sub.set(zmq.UNSUBSCRIBE, former)
        self._heard = [topic.encode() for topic in topics]

    def hear(self) -> tuple[bytes, bytes]:
        """The next message: topic and payload. Raises Failed where none comes."""
        try:
            topic, payload = self.sub.recv_multipart()
        except zmq.Again:
            raise Failed(f"nothing came from the event socket for {_PATIENCE_MS / 1000:g} s") from None
        return topic, payload

    def hear_topic(self, topic: str) -> bytes:
        """The payload of the next message with this topic; others are passed over."""
        wanted = topic.encode()
        while True:
            got, payload = self.hear()
            if got == wanted:
                return payload

    def finish(self, run: Run) -> None:
        """Hear a run to its end, which has to be a good one."""
        payload = self.hear_topic(f"{run.id}/RunFinished")
        if b'"status":"completed"' not in payload:
            raise Failed(f"a run of the benchmark did not go well: {payload.decode(errors='replace')}")

    def warm_up(self) -> None:
        """Return when the subscription works and everything has run once."""
        self.sub.set(zmq.RCVTIMEO, 500)
        for _ in range(20):
            run = self.start("one")
            try:
                self.finish(run)
                break
            except Failed:
                run.wait(10)
        else:
            raise Failed("the event socket says nothing")
        self.sub.set(zmq.RCVTIMEO, _PATIENCE_MS)

    def close(self) -> None:
        self._context.destroy(linger=0)


@contextmanager
def sparrow(place: str = PLACE) -> Iterator[Sparrow]:
    """A fresh supervisor, warmed up; it and all that it started are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="spb-", dir=place))
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("SPARROW_")]:
        del os.environ[name]
    os.environ.update(
        SPARROW_STATE_DIR=str(folder / "s"),
        SPARROW_RUNTIME_DIR=str(folder / "r"),
        SPARROW_CONFIG=str(folder / "none.toml"),
        SPARROW_TCP="127.0.0.1:0",
    )
    client = Client(places=find_places(), timeout=30)
    try:
        client.start()
        bench = Sparrow(client, addresses(client.places).events)
        try:
            bench.warm_up()
            yield bench
        finally:
            bench.close()
    finally:
        client.shutdown(now=True)
        client.close()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def milliseconds_since(start: float) -> float:
    """Since a moment of time.perf_counter()."""
    return (time.perf_counter() - start) * 1000
