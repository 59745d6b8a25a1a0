"""A seat for each agent: its program, a house, and a model server on loopback in place of its cloud."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agents.model_server import ModelServer, model_server
from tests.agents.packages import CannotInstall, node, program_folder, wanted
from tests.agents.seats import SEATS
from tests.support.house import House


@pytest.fixture(scope="module", params=wanted())
def agent(request: pytest.FixtureRequest) -> str:
    """Each of those that are wanted and here."""
    try:
        program_folder(request.param)
    except CannotInstall as reason:
        pytest.skip(str(reason))
    return request.param


@pytest.fixture
def model() -> Iterator[ModelServer]:
    """What the agent takes for its cloud."""
    with model_server() as server:
        yield server


@pytest.fixture
def seat(house: House, agent: str, model: ModelServer) -> House:
    """A house in which the agent is installed, logged in and talks to the server."""
    house.env["PATH"] = f"{program_folder(agent)}:{node().parent}:{house.env['PATH']}"
    house.env |= SEATS[agent](house.home, model.url)
    return house
