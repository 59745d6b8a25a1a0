"""The laws of the house, for longer than fits into the usual run."""

from __future__ import annotations

import pytest

from tests.unit.test_house_machine import run_machine


@pytest.mark.stress
@pytest.mark.parametrize(("examples", "steps"), [(200, 50), (50, 200)], ids=["many short lives", "few long ones"])
def test_the_laws_of_the_house_for_10_000_steps(examples: int, steps: int) -> None:
    run_machine(examples, steps)
