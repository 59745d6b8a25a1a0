"""L3, at its figure."""

from __future__ import annotations

import pytest

from tests.support.pid_namespace import needs_namespaces, reuse_pids
from tests.support.stress import scaled

pytestmark = [pytest.mark.stress, *needs_namespaces]


def test_l3_no_stranger_is_signalled(figure) -> None:
    trials = scaled(200)
    seen = reuse_pids(trials)
    assert seen == {"trials": trials, "given away": trials, "untouched": trials}
    figure(f"L3: {trials} strangers got the pid of what was just to be signalled: {trials} untouched")
