"""How quantities and ends are said, and what they exit with."""

from datetime import UTC, datetime

import pytest

from sparrow_mp.cli import words

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "code", "killed_by", "expected"),
    [
        ("completed", 0, None, 0),
        ("failed", 7, None, 7),
        ("failed", None, None, 1),
        ("failed", 256, None, 1),
        ("interrupted", None, 15, 130),
        ("timed_out", None, 9, 124),
        ("out_of_memory", None, 9, 137),
        ("crashed", None, 9, 137),
        ("crashed", None, 11, 139),
        ("rejected", 127, None, 127),
        ("rejected", 126, None, 126),
        ("rejected", None, None, 1),
        ("over_budget", None, None, 1),
        ("lost", None, None, 1),
        ("something new", None, None, 1),
    ],
)
def test_exit_codes(status, code, killed_by, expected):
    assert words.exit_code(status, code, killed_by) == expected


def test_endings():
    assert words.ending("crashed", None, 9, None) == "crashed: signal 9 (SIGKILL)"
    assert words.ending("failed", 7, None, None) == "failed: exit code 7"
    assert words.ending("timed_out", None, 9, "after 5 s") == "timed out: after 5 s"
    assert words.ending("completed", 0, None, None) == "completed"
    assert words.ending("crashed", None, 99, None) == "crashed: signal 99"


def test_ids_are_as_short_as_they_can_be():
    a, b, c = "aaaaaaaa-1", "aaaaaaaa-2", "bbbbbbbb-1"
    assert words.short_ids([c, a, b]) == {a: "aaaaaaaa-1", b: "aaaaaaaa-2", c: "bbbbbbbb"}
    assert words.short_ids([a, a]) == {a: "aaaaaaaa"}


def test_quantities():
    assert [words.duration(s) for s in (0.0123, 3.21, 250, 7500, 273600)] == [
        "12 ms",
        "3.2 s",
        "4 min 10 s",
        "2 h 5 min",
        "3 d 4 h",
    ]
    assert [words.size(n) for n in (None, 5, 1536, 83886080, 5 << 40)] == ["-", "5 B", "1.5 K", "80 M", "5120 G"]
    assert [words.money(usd) for usd in (0, 0.0123, 12.3)] == ["$0.00", "$0.0123", "$12.30"]
    assert words.age("2026-11-22T11:58:00Z", NOW) == "2m"
    assert words.age("2026-11-22T12:00:05Z", NOW) == "0s"
    assert words.age("nonsense", NOW) == "-"


def test_what_steers_a_terminal_is_made_visible():
    assert words.clean("a\x1b]0;title\x07b\x9b2J\u202ec\r") == "a\\x1b]0;title\\x07b\\x9b2J\\u202ec\\r"
    assert words.clean("tab\tline\n") == "tab\tline\n"
    assert words.clean("naïve — 日本") == "naïve — 日本"


def test_one_line_is_cut_by_columns():
    assert words.one_line("a\n  b\tc") == "a b c"
    assert words.one_line("日本語日本語", 7) == "日本語…"
    assert words.one_line("abcdef", 6) == "abcdef"
    assert words.one_line("abcdef", 5) == "abcd…"
