"""Values as people type them."""

from datetime import UTC, datetime

import pytest

from sparrow_mp.cli.values import parse_env, parse_since
from sparrow_mp.quantities import parse_duration, parse_size

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0.5", 0.5), ("90s", 90), ("5m", 300), ("2h", 7200), ("30d", 2592000), ("1h30m", 5400), ("0", 0)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 m", "-5", "5w", "5m!", "m5", "nan", "inf", "1e3", "٥m"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("1K", 1024), ("512k", 524288), ("1.5G", 1610612736), ("2M", 2097152), ("2MiB", 2097152)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1T", "many"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)


def test_where_to_begin():
    assert parse_since("120") == 120
    assert parse_since("5m", NOW) == "2026-11-22T11:55:00.000000Z"
    assert parse_since("2026-11-22T12:00:00+01:00") == "2026-11-22T11:00:00.000000Z"
    with pytest.raises(ValueError, match="no place to begin"):
        parse_since("yesterday")
    with pytest.raises(ValueError, match="no place to begin"):
        parse_since("99999999d", NOW)


def test_environment_adds_and_insists():
    caller = {"PATH": "/bin", "TOKEN": "x"}
    assert parse_env(["A=1=2", "TOKEN", "EMPTY="], caller) == {"PATH": "/bin", "TOKEN": "x", "A": "1=2", "EMPTY": ""}
    with pytest.raises(ValueError, match="MISSING is not set here"):
        parse_env(["MISSING"], caller)
    with pytest.raises(ValueError, match="no variable"):
        parse_env(["=1"], caller)
