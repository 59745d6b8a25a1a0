"""Clients that read, stall and resume in any order, for longer than fits into the usual run."""

from __future__ import annotations

import pytest

from tests.support.stress import Figure, scaled
from tests.unit.test_session_machine import run_machine


@pytest.mark.stress
def test_every_client_gets_its_events_once_and_in_order(figure: Figure) -> None:
    run_machine(scaled(150))
    figure(f"adapters: {scaled(150):,} orders of writing, reading, stalling and resuming: each event once, in order")
