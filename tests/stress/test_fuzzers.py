"""Coverage-guided fuzzing of everything that decodes what others write, from the kept corpus on."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS
from tests.support.stress import FACTOR, Figure

TOP = Path(__file__).parents[2]
SECONDS = 9

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="there is no atheris for this machine"),
]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_decoder(name: str, tmp_path: Path, figure: Figure) -> None:
    """What it finds is left in the test's folder, to be kept in the corpus once it is mended."""
    found = tmp_path / "found"
    found.mkdir()
    options = [
        f"-max_total_time={max(1, round(SECONDS * FACTOR))}",
        "-max_len=4096",
        "-timeout=10",
        "-print_final_stats=1",
    ]
    command = [sys.executable, "-m", "tests.fuzz.fuzz", name, *options, f"-artifact_prefix={tmp_path}/", found]
    done = subprocess.run(
        [*map(str, command), str(TOP / "tests" / "fuzz" / "corpus" / name)], cwd=TOP, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    count = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    assert count is not None, done.stderr[-2000:]
    assert int(count[1]) > 100
    figure(f"S3: fuzzing `{name}`: {int(count[1]):,} inputs, 0 faults")
