"""The units under the `systemd --user` of somebody who is not root, from the installation to the logout."""

from __future__ import annotations

import pytest

from tests.acceptance.test_ordinary_user import NEEDED, Person, person, way_to  # noqa: F401  a fixture
from tests.support.seat import Seat, needs_systemd
from tests.support.waiting import eventually

pytestmark = [*needs_systemd, pytest.mark.stress]


def test_an_ordinary_user_has_all_of_it(person: Person):  # noqa: F811  the fixture
    seat = Seat(person.name, person.uid, f"{way_to(*NEEDED)} true")
    try:
        seat.sparrow("service", "install").ok()
        seat.drop_in("[Service]\nWatchdogSec=2\nRestartSec=100ms\n")
        seat.systemctl("start", "sparrow").ok()
        run = seat.detach("--name", "mine", "--", "sh", "-c", "id -un; echo up; read line; echo got $line; sleep 1000")
        seat.says(run, "up")
        top = seat.cgroup / seat.shown("ControlGroup", "sparrow-runs").lstrip("/")
        assert (top / f"sparrow-{run}" / "cgroup.procs").read_text()
        for how in (["restart", "sparrow"], ["kill", "-s", "KILL", "--kill-who=main", "sparrow"]):
            former = seat.shown("MainPID")
            seat.systemctl(*how).ok()
            eventually(lambda: seat.shown("ActiveState") == "active" and seat.shown("MainPID") not in ("0", former))  # noqa: B023
        seat.sparrow("inject", run, "it").ok()
        seat.says(run, "got it")
        assert seat.printed(run) == f"{person.name}\nup\ngot it\n"
        seat.log_out()
        assert seat.outcome(run)["status"] == "interrupted"
    finally:
        seat.close()
