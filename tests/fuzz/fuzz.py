"""Runs one target under atheris: ``python -m tests.fuzz.fuzz TARGET [LIBFUZZER OPTIONS] [FOLDERS]``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sparrow_mp", "sparrow_supervisor"]):  # pyright: ignore[reportAttributeAccessIssue]  it has no types
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as folder:
        atheris.Setup(sys.argv, lambda data: target(data, Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
