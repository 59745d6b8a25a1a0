"""The command line: one file a verb, ``render.py`` for what people see, ``app.py`` puts them together.

This file stays empty but for the entry point, so that `sparrow --version` reads next to nothing.
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """The entry point of the command `sparrow`; ends the process with the verb's exit code."""
    if sys.argv[1:] == ["--version"]:
        from sparrow_mp._version import __version__

        sys.stdout.write(f"sparrow {__version__}\n")
        sys.exit(0)
    gc.set_threshold(50_000)  # what is imported is no garbage: looking for some costs a twentieth of a short command
    from sparrow_mp.cli.app import run_cli

    sys.exit(run_cli())
