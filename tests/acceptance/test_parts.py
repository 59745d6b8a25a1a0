"""A long transcript is in sealed parts, and nobody who reads it notices: neither while it is sealed, nor where that was cut short."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.support.house import House
from tests.support.waiting import eventually

_COUNT = """
import os, pathlib, time
from sparrow_mp import Message

def count(run):
    record = pathlib.Path(os.environ["SPARROW_STATE_DIR"], "transcripts", run.id)

    def recorded(text):
        try:
            return any(text in path.read_text() for path in record.glob("events*.jsonl"))
        except FileNotFoundError:
            return False  # that part is just being sealed

    for batch in range(40):
        run.emit_many([Message(role="assistant", text=str(batch * 10 + n)) for n in range(10)])
        # Only then the next one, so that they are recorded as many batches, and make many parts, however slowly that goes.
        while not recorded(f'"text":"{batch * 10 + 9}"'):
            time.sleep(0.01)
        if batch == 20:
            run.next_message()
"""

_NUMBERS = [str(number) for number in range(400)]
_FIRST_HALF = 210


def _texts(lines: list[bytes]) -> list[str]:
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    return [event["text"] for event in events if event["type"] == "Message" and event["role"] == "assistant"]


def _parts(house: House, run: str) -> list[Path]:
    return list(house.places.transcript(run).glob("events.*.jsonl"))


def _begin(house: House) -> str:
    house.configure("[supervisor]\npart_bytes = 3000\n")
    house.write("count.py", _COUNT)
    return house.detach("-e", "python", "count.py:count")


def _half(house: House, run: str) -> None:
    eventually(lambda: len(house.events(run)) > _FIRST_HALF, what="half of the events")


@pytest.mark.acceptance
def test_nobody_notices_that_a_transcript_is_sealed(house: House) -> None:
    run = _begin(house)
    _half(house, run)
    house.start()  # its adapters may still be on their way
    with house.begin("logs", "-f", "--json", run) as follower, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(house.places.unix_socket))
        client.sendall(json.dumps({"run": run, "since": 0}).encode() + b"\n")
        eventually(lambda: str(_FIRST_HALF - 1) in follower.out, what="the follower")
        house.sparrow("inject", run, "go on").ok()
        assert house.outcome(run)["status"] == "completed"
        assert _texts(follower.wait().stdout.splitlines()) == _NUMBERS
        received = b""
        while b'"RunFinished"' not in received:
            received += client.recv(1 << 16)
    assert len(_parts(house, run)) > 5
    assert _texts(received.splitlines()) == _NUMBERS
    assert _texts(house.sparrow("logs", "--json", run).ok().stdout.splitlines()) == _NUMBERS
    since = house.sparrow("logs", "--json", "--since", "300", run).ok().rows()
    assert [event["seq"] for event in since] == list(range(301, len(house.events(run)) + 1))
    asked = house.python(
        "import sys\nfrom sparrow_mp import Client\n"
        "with Client(start=False) as sparrow:\n"
        "    print(*[event.seq for event in sparrow.run(sys.argv[1]).events(since=250)])",
        run,
    )
    assert [int(seq) for seq in asked.ok().out.split()] == list(range(251, len(house.events(run)) + 1))


@pytest.mark.acceptance
@pytest.mark.parametrize("step", ["recorder.seal.made", "recorder.seal.renamed", "recorder.seal.done"])
def test_a_supervisor_that_is_killed_while_it_seals_loses_nothing(house: House, step: str) -> None:
    points = house.top / "points"
    points.mkdir()
    house.env["SPARROW_FAILPOINTS"] = str(points)
    (points / step).write_text("kill 2")
    run = _begin(house)
    eventually((points / f"{step}.reached").exists, what="the sealing")
    with house.begin("logs", "-f", "--json", run) as follower:
        eventually(lambda: not house.supervised, what="the death of the supervisor")
        house.start()
        _half(house, run)
        house.sparrow("inject", run, "go on").ok()
        assert house.outcome(run)["status"] == "completed"
        assert _texts(follower.wait().stdout.splitlines()) == _NUMBERS
    assert [event["text"] for event in house.events(run) if event.get("role") == "assistant"] == _NUMBERS
    assert not (house.places.transcript(run) / "events.jsonl.new").exists()
