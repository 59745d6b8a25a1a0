"""Waiting for what is to happen, instead of for a time in which it should have."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], timeout: float = 30.0, what: str = "") -> T:
    """Ask until the answer is true, and give it. An AssertionError or OSError of ``check`` means: not yet.

    Fails with ``what`` and the last answer when time is over. The limit is generous on purpose: a machine may be busy, and
    a test that passes never waits for it.
    """
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        late = time.monotonic() > deadline  # before it is asked, which may take long: what was so then is no last word
        said: object
        try:
            said = answer = check()
            if answer:
                return answer
        except (AssertionError, OSError) as error:
            said = error
        if late:
            raise AssertionError(f"{what or 'it'} did not come true within {timeout:g} s; the last answer: {said!r}")
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)
