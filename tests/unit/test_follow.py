"""Who follows everything keeps no more than there is to follow."""

from __future__ import annotations

import shutil
from pathlib import Path

from sparrow_mp.follow import Everything
from sparrow_mp.paths import Places
from tests.support.records import Record


def held(everything: Everything) -> set[str]:
    """The ids that it keeps anywhere."""
    return {run for kept in vars(everything).values() if isinstance(kept, dict | set) for run in kept}


def test_deleted_runs_are_forgotten(tmp_path: Path) -> None:
    places = Places(tmp_path, tmp_path / "run", tmp_path / "config.toml")
    before = [Record(places.transcripts) for _ in range(3)]
    everything = Everything(places)
    assert {record.run for record in before} <= held(everything)
    lines: list[bytes] = []
    ended = [Record(places.transcripts) for _ in range(3)]
    for record in ended:
        record.add(count=2)
        record.finish()
    everything.scan()
    while found := everything.take():
        lines += found
    assert sorted(lines) == sorted(line for record in ended for line in record.lines)
    assert {record.run for record in ended} <= held(everything)
    for record in before + ended:
        shutil.rmtree(record.folder)
    last = Record(places.transcripts)
    last.add()
    everything.scan()
    assert everything.take() == last.lines
    assert held(everything) == {last.run}
    everything.close()
