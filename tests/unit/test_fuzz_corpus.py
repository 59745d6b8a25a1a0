"""The fuzzers' kept inputs, each a case of its own: what once was found stays mended, and no target is broken itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", TARGETS)
def test_every_kept_input_is_dealt_with(name: str, tmp_path: Path) -> None:
    kept = sorted((CORPUS / name).iterdir())
    assert kept
    for path in kept:
        data = path.read_bytes()
        for cut in range(0, len(data) + 1, max(1, len(data) // 50)):
            TARGETS[name](data[:cut], tmp_path)
            TARGETS[name](data[:cut] + b"\xff\0" + data[cut + 1 :], tmp_path)
