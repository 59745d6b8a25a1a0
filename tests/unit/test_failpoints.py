from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

_PASS = """
import sys
from sparrow_mp import failpoints
for n in range(int(sys.argv[1])):
    if failpoints.ARMED:
        failpoints.reach("here")
print("through")
"""


def _pass(folder: Path | None, times: int) -> subprocess.Popen[str]:
    env = {name: value for name, value in os.environ.items() if name != "SPARROW_FAILPOINTS"}
    if folder is not None:
        env["SPARROW_FAILPOINTS"] = str(folder)
    return subprocess.Popen([sys.executable, "-c", _PASS, str(times)], env=env, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("action", "times", "struck"), [("kill", 1, True), ("kill 3", 3, True), ("kill 3", 2, False)])
def test_a_point_strikes_the_process_that_comes_by_often_enough(tmp_path: Path, action, times, struck) -> None:
    (tmp_path / "here").write_text(action)
    process = _pass(tmp_path, times)
    out, _ = process.communicate()
    assert process.returncode == (-signal.SIGKILL if struck else 0)
    assert out == ("" if struck else "through\n")
    assert (tmp_path / "here").exists() is not struck
    assert (tmp_path / "here.reached").exists() is struck
    if struck:
        assert (tmp_path / "here.reached").read_text() == str(process.pid)


def test_a_point_strikes_once(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("kill")
    assert _pass(tmp_path, 1).communicate()[0] == ""
    assert _pass(tmp_path, 5).communicate()[0] == "through\n"


def test_a_stopped_process_goes_on_when_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("stop")
    process = _pass(tmp_path, 1)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGCONT)
    assert process.communicate()[0] == "through\n"


def test_without_the_variable_nothing_is_armed(tmp_path: Path) -> None:
    assert _pass(None, 3).communicate()[0] == "through\n"
