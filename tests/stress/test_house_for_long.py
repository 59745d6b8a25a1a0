"""The laws of the house, for longer than fits into the usual run."""

from __future__ import annotations

import pytest

from tests.support.stress import Figure, scaled
from tests.unit.test_house_machine import run_machine


@pytest.mark.stress
@pytest.mark.parametrize(("examples", "steps"), [(300, 50), (80, 200)], ids=["many short lives", "few long ones"])
def test_the_laws_of_the_house_for_10_000_steps(examples: int, steps: int, figure: Figure) -> None:
    taken = run_machine(scaled(examples), steps)
    assert taken >= scaled(10_000)
    figure(f"the house: {taken:,} steps of the state machine in {scaled(examples):,} lives: every law held")
