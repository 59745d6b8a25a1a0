"""`sparrow service` where systemd is not to be had, or its folder cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.house import BIN, House

pytestmark = pytest.mark.acceptance


def test_without_systemd_it_says_that_none_is_needed(house: House):
    env = {"PATH": str(BIN)}
    house.sparrow("service", "install", env=env).refused(1, "systemd is not on this machine", "background")
    done = house.sparrow("service", "status", "--json", env=env)
    assert (done.code, done.rows()[0]["installed"], done.rows()[0]["systemd"]) == (1, False, False)


@pytest.fixture
def tools(house: House) -> Path:
    """A folder with a `systemctl` that must not be called."""
    path = house.write("bin/systemctl", "#!/bin/sh\nexit 99\n")
    path.chmod(0o755)
    return path.parent


def test_where_it_cannot_be_reached_the_units_are_written_all_the_same(house: House, tools: Path):
    env = {"PATH": f"{tools}:{house.env['PATH']}", "XDG_RUNTIME_DIR": str(house.work)}
    done = house.sparrow("service", "install", env=env).ok()
    assert "cannot be reached" in done.err
    units = house.home / ".config/systemd/user"
    assert (units / "default.target.wants/sparrow.service").resolve() == units / "sparrow.service"
    assert "nothing to do" in house.sparrow("service", "install", env=env).ok().out
    usual = {**env, "SPARROW_STATE_DIR": "", "SPARROW_RUNTIME_DIR": "", "SPARROW_CONFIG": ""}
    started = house.sparrow("run", "--", "true", env=usual).ok()
    assert "(systemd, which has the unit, cannot be reached)" in started.err
    house.sparrow("shutdown", env=usual).ok()
    house.sparrow("service", "uninstall", env=env).ok()
    assert not list(units.rglob("sparrow*"))
    assert "nothing to do" in house.sparrow("service", "uninstall", env=env).ok().out


def test_what_is_not_ours_stays(house: House, tools: Path):
    env = {"PATH": f"{tools}:{house.env['PATH']}", "XDG_RUNTIME_DIR": str(house.work)}
    unit = house.home / ".config/systemd/user/sparrow.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/bin/mine\n")
    house.sparrow("service", "install", env=env).refused(1, "was not written by sparrow", "move it away")
    assert "stays" in house.sparrow("service", "uninstall", env=env).ok().err
    assert "mine" in unit.read_text()


def test_a_folder_that_cannot_be_written(house: House, tools: Path):
    env = {"PATH": f"{tools}:{house.env['PATH']}", "XDG_CONFIG_HOME": "/proc", "XDG_RUNTIME_DIR": os.devnull}
    house.sparrow("service", "install", env=env).refused(1, "/proc/systemd", "cannot be written", "XDG_CONFIG_HOME")
