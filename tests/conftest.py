from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.support.house import House

# What a shell starts in the background (`scripts/test &`) ignores the keys' signals, and so would every command that the
# tests send them to.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.fixture
def house() -> Iterator[House]:
    """Folders, an environment and a supervisor (once one is needed) of this test's own; it fails for what is left behind."""
    house = House()
    try:
        yield house
    finally:
        house.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[House]:
    """The same for all tests of a module that only submit runs and look at them: a supervisor for each costs a second."""
    house = House()
    try:
        yield house
    finally:
        house.close()


def pytest_configure() -> None:
    """A SIGTERM (a `timeout` around the tests) ends them as Ctrl-C does, so that each tidies up what it has started."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
