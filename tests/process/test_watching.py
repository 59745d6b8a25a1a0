"""The watch on jobs' files: what changes while the jobs themselves change is neither lost nor told twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparrow_supervisor.aside import Bell
from sparrow_supervisor.loop import Loop
from sparrow_supervisor.watching import Watched, Watching
from tests.support.waiting import eventually


class Eyes:
    """A watch in a loop of its own thread, and what it told."""

    def __init__(self, own: Path) -> None:
        self.told: list[str] = []
        self._loop = Loop()
        self._bell = Bell(self._loop)
        self.watching = Watching(self._bell, own, lambda job, _: self.told.append(job))
        self._thread = threading.Thread(target=self._loop.run)
        self._thread.start()

    def watch(self, wanted: dict[str, Watched]) -> None:
        """From the loop, as everything that changes the jobs does."""
        done = threading.Event()

        def change() -> None:
            self.watching.watch(wanted)
            done.set()

        self._bell.call(change)
        assert done.wait(10)

    def close(self) -> None:
        self._bell.call(self.watching.close)
        self._bell.call(self._loop.stop)
        self._thread.join(10)
        self._bell.close()
        eventually(lambda: not [each for each in threading.enumerate() if each.name == "watching"], what="no thread")


@pytest.fixture
def eyes(tmp_path: Path) -> Iterator[Eyes]:
    eyes = Eyes(tmp_path / "own")
    yield eyes
    eyes.close()


def test_what_changes_while_the_jobs_change_is_told_once(tmp_path: Path, eyes: Eyes) -> None:
    first, second = (Watched(str(tmp_path / name), ("**/*",)) for name in ("first", "second"))
    for each in (first, second):
        Path(each.folder).mkdir()
    eyes.watch({"first": first})
    count = 0

    def touch() -> int:
        nonlocal count
        count += 1
        Path(first.folder, f"file{count}").touch()
        return len(eyes.told)

    eventually(touch, what="the watch")
    for wanted in ({"first": first, "second": second}, {"first": first}):
        settled(eyes)
        touch()
        eyes.watch(wanted)
        eventually(lambda: eyes.told, what="what changed just before the jobs did")
        settled(eyes)
        assert eyes.told == []


def settled(eyes: Eyes) -> None:
    """Nothing is told any more of what has been."""
    last = time.monotonic()

    def quiet() -> bool:
        nonlocal last
        if eyes.told:
            last = time.monotonic()
            eyes.told.clear()
        return (
            time.monotonic() - last > 1
        )  # each look tells after a fifth of a second, and is relieved after half of one

    eventually(quiet, what="quiet")
