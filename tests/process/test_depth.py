"""What is nested too deeply to be read everywhere is refused where it comes in, and disturbs nobody."""

from __future__ import annotations

import pytest

from sparrow_mp import Client
from sparrow_mp.events import decode, decode_header
from sparrow_mp.paths import find_places
from tests.support.house import House

pytestmark = pytest.mark.process


def from_deep_down(depth: int, lines: list[bytes]) -> int:
    """Read as a program would that has called itself so often; how many events there are."""
    if depth:
        return from_deep_down(depth - 1, lines)
    return len([decode(line) for line in lines if decode_header(line).seq])


def test_events_of_any_depth_are_read_or_refused(house: House) -> None:
    house.write(
        "deep.py",
        "from sparrow_mp import Custom\n"
        "def main(run):\n"
        "    for depth in range(10, 2000, 30):\n"
        "        data = []\n"
        "        for _ in range(depth):\n"
        "            data = [data]\n"
        "        try:\n"
        "            run.emit(Custom(name=str(depth), data=data))\n"
        "        except RecursionError:\n"
        "            return depth\n",
    )
    run = house.detach("-e", "python", "deep.py:main")
    outcome = house.outcome(run)
    assert outcome["status"] == "completed"
    emitted = (outcome["result"] or 2000) // 30
    with Client(places=find_places(house.env), start=False) as sparrow:
        lines = list(sparrow.run(run).lines())
    assert from_deep_down(400, lines) == len(lines) == emitted + 2
    kinds = [decode_header(line).type for line in lines[1:-1]]
    assert kinds[:10] == ["Custom"] * 10
    if outcome["result"]:  # where Python bounds the depth by its own calls, and not by C's
        assert kinds[-10:] == ["Error"] * 10


def test_a_result_of_any_depth_leaves_the_run_as_it_is(shared: House) -> None:
    shared.write(
        "result.py",
        "def nested(depth):\n"
        "    data = ['[' + chr(34) + chr(92)]\n"
        "    for _ in range(depth - 1):\n"
        "        data = {'a': data} if _ % 2 else [data]\n"
        "    return data\n"
        "def main(run):\n"
        "    return nested(int(run.next_message()))\n",
    )
    for depth in (1, 300, 301, 480, 700, 960):
        run = shared.detach("-e", "python", "result.py:main")
        shared.sparrow("inject", run, str(depth)).ok()
        outcome = shared.outcome(run)
        assert outcome["status"] == "completed", depth
        if depth > 300:
            assert outcome["reason"] == "its result is nested more than 300 deep, and was left out"
        else:
            found, levels = outcome["result"], 0
            while not isinstance(found, str):
                found, levels = found["a"] if isinstance(found, dict) else found[0], levels + 1
            assert (levels, found) == (depth, '["' + chr(92))
