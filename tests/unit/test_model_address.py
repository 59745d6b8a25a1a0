"""Where the local model server listens, as one file says."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from sparrow_mp.model_address import Claim, Endpoint, Taken, endpoint
from sparrow_mp.paths import Places

pytestmark = pytest.mark.unit

HERE = Endpoint("http://127.0.0.1:1/v1", "tiny", "secret", 512, 9.0, True, "1b0c")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path, tmp_path, tmp_path / "config.toml")


def test_a_server_is_there_from_when_it_tells_until_it_is_gone(places: Places) -> None:
    assert endpoint(places) is None
    with Claim(places) as claim:
        assert endpoint(places) is None, "it is not ready"
        claim.tell(HERE)
        assert endpoint(places) == HERE
        assert stat.S_IMODE((places.runtime / "model.json").stat().st_mode) == 0o600
    assert endpoint(places) is None
    assert (places.runtime / "model.json").read_bytes() == b""


def test_there_is_one_at_a_time(places: Places) -> None:
    with Claim(places) as claim:
        claim.tell(HERE)
        with pytest.raises(Taken):
            Claim(places)
        assert endpoint(places) == HERE
    with Claim(places):
        assert endpoint(places) is None, "what the one before has told is gone"


def test_one_that_was_killed_is_none(places: Places) -> None:
    (places.runtime / "model.json").write_text(json.dumps(HERE._asdict()))
    assert endpoint(places) is None


def test_looking_for_it_in_order_to_use_it_is_noticed(places: Places) -> None:
    with Claim(places) as claim:
        claim.tell(HERE)
        os.utime(places.runtime / "model.json", (1, 1))
        before = claim.asked_for
        assert endpoint(places) == HERE
        assert claim.asked_for == before
        assert endpoint(places, to_use=True) == HERE
        assert claim.asked_for > before


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", "{}", '{"base_url": 1}', json.dumps({**HERE._asdict(), "context": "much"})]
)
def test_what_makes_no_sense_is_none(places: Places, text: str) -> None:
    with Claim(places):
        (places.runtime / "model.json").write_text(text)
        assert endpoint(places) is None


def test_what_is_no_file_is_none(places: Places) -> None:
    os.mkfifo(places.runtime / "model.json")
    assert endpoint(places) is None


def test_the_key_is_shown_nowhere_by_chance() -> None:
    assert "secret" not in f"{HERE} {HERE!r}"
