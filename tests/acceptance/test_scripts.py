"""What `scripts/sparrow` installs before it becomes sparrow."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

SCRIPT = Path(__file__).parents[2] / "scripts" / "sparrow"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ("", "run"),
        ("ps", "run"),
        ("run -e shell agent", "run"),
        ("run -- prog -e agent", "run"),
        ("logs model", "run"),
        ("run -e agent hello", "agents"),
        ("run -d --engine agent hello", "agents"),
        ("schedule add x --engine=acp hello", "agents"),
        ("run -eagent hello", "agents"),
        ("run -e model serve", "agents"),
        ("model serve", "agents"),
    ],
)
def test_what_agents_need_is_installed_when_it_is_asked_for(tmp_path: Path, arguments: str, kind: str) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(SCRIPT, scripts)
    (scripts / "_env.sh").write_text('sparrow_env() { echo "$1"; exit 0; }\n')
    done = subprocess.run([scripts / "sparrow", *arguments.split()], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{kind}\n", "")
