from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.house import House


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
