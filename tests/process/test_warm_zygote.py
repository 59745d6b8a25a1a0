"""A zygote that has more loaded, seen from its socket: its name comes when it is ready, and it ends when it is not used."""

from __future__ import annotations

import select
from pathlib import Path

import pytest

from sparrow_supervisor import zygote_client
from sparrow_supervisor.zygote_client import ZygoteClient
from tests.support.waiting import eventually


def start(folder: Path, *modules: str) -> ZygoteClient:
    return ZygoteClient.start(folder / "z.new", folder / "log", folder / "z", modules)


def hear(zygote: ZygoteClient) -> list[str]:
    """The first words of all that it says next; nothing where it has ended."""
    select.select([zygote], [], [], 20)
    return [next(iter(body)) for body, _ in zygote.receive()]


def test_it_is_found_once_it_has_loaded_and_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(zygote_client, "_IDLE_S", 0.2)
    zygote = start(tmp_path, "colorsys")
    try:
        assert hear(zygote)[0] == "zygote"
        assert zygote.preloaded == ["colorsys"]
        assert not (tmp_path / "z.new").exists()
        eventually(lambda: hear(zygote) == [] and zygote.closed, what="its end, though somebody is connected")
        eventually(zygote.reap, what="the end of its process")
        assert not (tmp_path / "z").exists()
    finally:
        zygote.kill()


def test_it_ends_where_its_name_is_taken_away_while_it_loads(tmp_path: Path):
    zygote = start(tmp_path, "colorsys")
    try:
        (tmp_path / "z.new").unlink()
        eventually(zygote.reap, what="its end")
        assert not (tmp_path / "z").exists()
    finally:
        zygote.kill()


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("raise SystemExit('not today')", "SystemExit: not today"),
        ("import os; os._exit(0)", ""),
        ("import threading, time; threading.Thread(target=time.sleep, args=(99,), daemon=True).start()", "1 threads"),
        ("import os; kept = os.pipe()", "descriptors"),
        (None, "No module named 'heavy'"),
    ],
    ids=["raises", "ends", "starts a thread", "opens descriptors", "is missing"],
)
def test_it_ends_where_something_cannot_be_loaded_for_forks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str | None, reason: str
):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if module is not None:
        (tmp_path / "heavy.py").write_text(module)
    zygote = start(tmp_path, "heavy")
    try:
        assert hear(zygote) == []
        assert zygote.closed
        eventually(zygote.reap, what="the end of its process")
        assert reason in (tmp_path / "log").read_text()
    finally:
        zygote.kill()
