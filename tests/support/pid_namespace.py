"""A PID namespace of a test's own, in which it may say what number the next process gets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]

needs_namespaces = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("unshare") is None or not Path("/proc/sys/kernel/ns_last_pid").exists(),
        reason="needs root, unshare, and a kernel with checkpoint/restore, to say who gets which pid",
    ),
]


def reuse_pids(trials: int) -> dict[str, Any]:
    """What tests/support/pid_reuse.py has to say of so many trials."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += [sys.executable, "-m", "tests.support.pid_reuse", str(trials)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=60 + trials)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report
