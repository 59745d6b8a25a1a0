"""Engine ``python``: the task names a function, ``package.module:function`` or ``path/file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from sparrow_mp.run.context import RunContext

_BOOTSTRAP = """
import os, sys
sys.path[:] = [entry for entry in sys.path if entry]
folder, channel, wake = sys.argv[1:4]
try:
    from sparrow_mp.run.child import resume_exec
except ImportError as error:
    import json
    reason = "sparrow-mp is not installed for %s (%s); install it there: %s -m pip install sparrow-mp" % (
        sys.executable, error, sys.executable)
    os.write(int(channel), (json.dumps({"rejected": reason}) + "\\n").encode())
    sys.exit(1)
resume_exec(folder, int(channel), int(wake))
"""


class PythonEngine:
    """Calls a function with the RunContext: forked from the zygote, or exec'd where the caller has another Python."""

    resumes = True
    """Its command takes the context up again in the other interpreter."""

    def command(self, run: RunContext) -> list[str] | None:
        """The interpreter to execute, where the task wants another one than this."""
        return None if run.interpreter is None else [run.interpreter, "-c", _BOOTSTRAP]

    def find(self, run: RunContext) -> Any:
        """The function. Raises what importing it raises, LookupError where the task names none."""
        place, colon, name = run.task.strip().rpartition(":")
        if not colon or not place or not name:
            raise LookupError("write the task as package.module:function or path/file.py:function")
        module = self._load_file(run.workspace / place) if place.endswith(".py") else self._load_module(place, run)
        function: Any = module
        for part in name.split("."):
            function = getattr(function, part)
        if not callable(function):
            raise LookupError(f"{name} is not a function")
        return function

    @staticmethod
    def _load_module(name: str, run: RunContext) -> Any:
        sys.path.insert(0, str(run.workspace))
        return importlib.import_module(name)

    @staticmethod
    def _load_file(path: Path) -> Any:
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None or not path.exists():
            raise LookupError(f"there is no file {path}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        return module
