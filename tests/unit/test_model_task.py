"""The task of the engine `model`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparrow_mp.engines.model import ModelEngine, Wish, parse_task
from sparrow_mp.run.context import CannotRun

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("task", "wish"),
    [
        ("serve", Wish()),
        ("serve --idle 15m", Wish(idle=900.0)),
        ("serve --model '/a b/c.gguf' --threads 3 --context 512", Wish("/a b/c.gguf", 0.0, 3, 512)),
    ],
)
def test_a_task_is_understood(task: str, wish: Wish) -> None:
    assert parse_task(task) == wish


@pytest.mark.parametrize(
    "task",
    ["", "sing", "serve now", "serve --idle", "serve --idle soon", "serve --port 80", "serve --threads -1", "serve 'x"],
)
def test_what_is_no_task_is_refused(task: str) -> None:
    with pytest.raises(ValueError):
        parse_task(task)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    run: Any = SimpleNamespace(task="serve", workspace=tmp_path)
    with pytest.raises(CannotRun, match=r"pip install 'sparrow-mp\[local\]'"):
        ModelEngine().find(run)
