"""Writers of an outbox that are killed at any moment, for longer than fits into the usual run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stress import Figure, scaled
from tests.unit.test_outbox import kill_writers


@pytest.mark.stress
def test_writers_that_are_killed_at_any_moment_leave_no_torn_line_and_no_hole(tmp_path: Path, figure: Figure) -> None:
    trials = scaled(3)
    lines = sum(kill_writers(tmp_path / f"outbox{trial}", trial, lives=25) for trial in range(trials))
    figure(f"an outbox: {25 * trials:,} times its two writers were killed, {lines:,} lines: none torn, none lost")
