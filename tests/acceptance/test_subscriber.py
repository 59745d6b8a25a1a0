"""Anyone who listens can read the events: bare ZeroMQ, and the tools that every machine has."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
import zmq

from tests.support.control import connected
from tests.support.house import Going, House
from tests.support.waiting import eventually

pytestmark = pytest.mark.acceptance

CHATTY = """
from sparrow_mp import Custom, Message, Progress, ReasoningDelta

def main(run):
    run.next_message()
    run.emit(ReasoningDelta(text="hidden"))
    for n in range(300):
        run.emit(Progress(done=n, total=300) if n % 3 else Message(role="assistant", text=f"line\\nbreak {n}"))
    run.emit_many([Custom(name="batch", data=n) for n in range(500)])
    print("printed", flush=True)
"""


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{' and '.join(missing)} not installed")


def chatty(house: House) -> str:
    """A run that has much to say once it is told to."""
    house.write("chatty.py", CHATTY)
    run = house.detach("-e", "python", "chatty.py:main")
    house.pid_of(run)
    return run


class Listener:
    """A SUB socket that is known to hear."""

    def __init__(self, socket: zmq.Socket[bytes], house: House, prefix: str = "") -> None:
        self.socket = socket
        socket.subscribe(b"")
        socket.set(zmq.RCVTIMEO, 200)

        def hears() -> bool:
            house.sparrow("run", "true").ok()
            try:
                return bool(socket.recv_multipart())
            except zmq.Again:
                return False

        eventually(hears, what="a subscription")
        if prefix:
            socket.subscribe(prefix.encode())
            socket.unsubscribe(b"")
            hears()  # a round trip: what comes after it is filtered already
        socket.set(zmq.RCVTIMEO, 10_000)

    def until(self, last: str) -> list[tuple[str, bytes]]:
        """Topic and line of each event up to the one with this topic."""
        heard: list[tuple[str, bytes]] = []
        while not heard or heard[-1][0] != last:
            topic, payload = self.socket.recv_multipart()
            heard += [(topic.decode(), line) for line in payload.splitlines()]
        return heard


def test_a_subscriber_gets_every_event_as_it_is_recorded(shared: House):
    shared.start()
    with connected(shared, zmq.SUB) as socket:
        listener = Listener(socket, shared)
        run = chatty(shared)
        shared.sparrow("inject", run, "go").ok()
        heard = [(topic, line) for topic, line in listener.until(f"{run}/RunFinished") if topic.startswith(run)]
    recorded = (shared.places.transcript(run) / "events.jsonl").read_bytes().splitlines()
    assert [line for _, line in heard] == recorded
    for topic, line in heard:
        assert topic == f"{run}/{json.loads(line)['type']}"
    assert f"{run}/ReasoningDelta" in [topic for topic, _ in heard]


def test_a_prefix_is_one_run_or_one_type_of_it(shared: House):
    shared.start()
    run = chatty(shared)
    with connected(shared, zmq.SUB) as socket:
        listener = Listener(socket, shared, f"{run}/RunFinished")
        shared.sparrow("inject", run, "go").ok()
        heard = listener.until(f"{run}/RunFinished")
    assert {topic for topic, _ in heard if topic.startswith(run)} == {f"{run}/RunFinished"}


def test_heads_tell_how_far_each_run_is(shared: House):
    shared.start()
    run = chatty(shared)
    with connected(shared, zmq.SUB) as socket:
        listener = Listener(socket, shared, "heads")
        shared.sparrow("inject", run, "go").ok()
        shared.outcome(run)
        last = len(shared.events(run))

        def told() -> bool:
            topic, payload = listener.socket.recv_multipart()
            body: dict[str, Any] = json.loads(payload)
            return topic == b"heads" and body["type"] == "Heads" and body["runs"].get(run) == last

        eventually(told, what="the head of the run")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("nc HOST PORT", marks=needs("nc")),
        pytest.param("socat -u UNIX-CONNECT:SOCKET -", marks=needs("socat")),
        pytest.param("socat -u TCP:HOST:PORT -", marks=needs("socat")),
        pytest.param("nc -U SOCKET", marks=needs("nc")),
    ],
)
def test_the_tools_of_every_machine_are_complete_clients(shared: House, command: str):
    told = shared.start()
    host, port = told["tcp"].split(":")
    for name, value in (("HOST", host), ("PORT", port), ("SOCKET", told["unix"])):
        command = command.replace(name, value)
    with Going(["sh", "-c", f"exec {command}"], shared.env, shared.work, subprocess.PIPE) as going:

        def hears() -> bool:
            shared.sparrow("run", "true").ok()
            return bool(going.out)

        eventually(hears, what="an event")
        run = chatty(shared)
        shared.sparrow("inject", run, "go").ok()
        shared.outcome(run)
        eventually(
            lambda: f'"run":"{run}"' in going.out.splitlines()[-1] and '"RunFinished"' in going.out.splitlines()[-1]
        )
        heard = [line for line in going.out.splitlines() if run in line]
    recorded = (shared.places.transcript(run) / "events.jsonl").read_text().splitlines()
    assert heard == [line for line in recorded if '"ReasoningDelta"' not in line[:40]]


@needs("nc", "jq")
def test_a_one_liner_with_jq(shared: House):
    told = shared.start()
    host, port = told["tcp"].split(":")
    run = shared.detach("--", "seq", "3")
    shared.outcome(run)
    request = json.dumps({"run": run, "since": 0})
    script = f"(echo '{request}'; cat) | nc {host} {port} | jq -r --unbuffered 'select(.type == \"Output\").text'"
    with Going(["sh", "-c", script], shared.env, shared.work, subprocess.PIPE) as going:
        eventually(lambda: going.out == "1\n2\n3\n", what="what the run has printed")
        assert going.process.stdin is not None
        going.process.stdin.close()


@needs("curl")
def test_a_peer_that_speaks_http_reads_nothing(shared: House):
    told = shared.start()
    shared.sparrow("run", "true").ok()
    for method in ("GET", "POST"):
        done = subprocess.run(
            [
                "curl",
                "-sS",
                "--http0.9",
                "-m",
                "5",
                "-X",
                method,
                "-d",
                '{"since":"2020-01-01T00:00:00Z"}',
                f"http://{told['tcp']}/",
            ],
            capture_output=True,
            timeout=20,
        )
        assert done.stdout == b""
