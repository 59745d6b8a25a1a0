"""When cron lines fire: against a matcher that looks at every minute, over years in several zones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from sparrow_mp.cron import Cron, CronError

pytestmark = pytest.mark.unit

ZONES = ("UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/St_Johns",
         "Africa/Casablanca", "Pacific/Apia", "America/Santiago", "America/Havana", "Asia/Beirut", "Antarctica/Troll")  # fmt: skip
LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def seconds(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


# ── a second implementation: it looks at each minute there is ──


def values(field: str, low: int, high: int) -> set[int]:
    """What a field of numbers, ranges, lists and steps means."""
    found: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = map(int, span.split("-"))
        else:
            first, last = int(span), high if step else int(span)
        found |= set(range(first, last + 1, int(step or 1)))
    return found


class Matcher:
    def __init__(self, line: str) -> None:
        fields = line.split()
        self.minutes, self.hours, self.days, self.months, weekdays = (
            values(field, *limits) for field, limits in zip(fields, LIMITS, strict=True)
        )
        self.weekdays = {day % 7 for day in weekdays}
        self.both = fields[2].startswith("*") or fields[4].startswith("*")
        self.by_the_wall = not fields[0].startswith("*") and not fields[1].startswith("*")

    def fits(self, local: datetime) -> bool:
        if local.minute not in self.minutes or local.hour not in self.hours or local.month not in self.months:
            return False
        day, weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return (day and weekday) if self.both else (day or weekday)


def ends(day: date, days: int, zone: str | None = None) -> tuple[datetime, datetime]:
    """Where some days begin and end."""
    begin = datetime.combine(day, time(), ZoneInfo(zone) if zone else None)
    return begin, begin + timedelta(days=days)


def meant(wall: datetime, tz: ZoneInfo) -> float:
    """The moment that clocks on the wall mean; where that is left out, the first one after it that is there."""
    while wall.replace(tzinfo=tz).astimezone(UTC).astimezone(tz).replace(tzinfo=None, fold=0) != wall:
        wall += timedelta(minutes=1)
    return wall.replace(tzinfo=tz, fold=0).timestamp()


def expected(line: str, zone: str, day: date, days: int = 3) -> list[float]:
    """All moments of some days at which the line fires: each minute that a clock on the wall shows, or that passes."""
    matcher, tz = Matcher(line), ZoneInfo(zone)
    first, last = (end.timestamp() for end in ends(day, days, zone))
    if matcher.by_the_wall:
        begin, end = ends(day, days)
        walls = (begin + timedelta(minutes=n) for n in range(int((end - begin).total_seconds() // 60)))
        found = {meant(wall, tz) for wall in walls if matcher.fits(wall)}
    else:
        real = (first + 60 * n for n in range(int((last - first) // 60)))
        found = {at for at in real if matcher.fits(datetime.fromtimestamp(at, tz))}
    return sorted(at for at in found if first <= at < last)


def fired(line: str, zone: str, day: date, days: int = 3) -> list[float]:
    first, last = (end.timestamp() for end in ends(day, days, zone))
    return list(moments(Cron(line, ZoneInfo(zone)), first - 1, last))


def moments(cron: Cron, begin: float, end: float) -> Iterator[float]:
    at = cron.after(begin)
    while at is not None and at < end:
        yield at
        at = cron.after(at)


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> str:
    number = st.integers(low, high)

    def term() -> str:
        kind = draw(st.sampled_from(["one", "range", "stepped", "from"]))
        first, last = sorted((draw(number), draw(number)))
        step = draw(st.integers(1, 12))
        return {
            "one": f"{first}",
            "range": f"{first}-{last}",
            "stepped": f"{first}-{last}/{step}",
            "from": f"{first}/{step}",
        }[kind]

    if draw(st.integers(0, 2)) == 0:
        return draw(st.sampled_from(["*", "*", "*/2", "*/7"]))
    return ",".join(term() for _ in range(draw(st.integers(1, 2))))


LINES = st.tuples(*(fields(low, high) for low, high in LIMITS)).map(" ".join)


QUICKLY = [Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink]  # to explain, Hypothesis traces every line


@settings(max_examples=50, deadline=None, phases=QUICKLY)
@given(LINES, st.sampled_from(ZONES), st.dates(date(2005, 1, 1), date(2035, 12, 1)))
def test_every_line_fires_as_one_who_looks_at_every_minute_says(line: str, zone: str, day: date) -> None:
    try:
        found = fired(line, zone, day)
    except CronError:
        found = []  # a day that there never is
    assert found == expected(line, zone, day)


@settings(max_examples=30, deadline=None, phases=QUICKLY)
@given(LINES, st.sampled_from(ZONES), st.integers(2005, 2035), st.sampled_from([3, 4, 9, 10, 11]), st.integers(0, 4))
@example("*/2 */2 * * *", "America/St_Johns", 2005, 10, 4)  # a minute after midnight it is a minute after 23:00 again
@example("* 2 * * *", "Australia/Lord_Howe", 2026, 4, 0)  # half an hour comes twice
def test_where_the_clocks_change(line: str, zone: str, year: int, month: int, week: int) -> None:
    """They do on a Sunday, mostly."""
    first = date(year, month, 1)
    day = first + timedelta(days=(6 - first.weekday()) % 7 + 7 * week - 1)
    fields = " ".join([*line.split()[:2], "*", "*", "*"])
    assert fired(fields, zone, day, 3) == expected(fields, zone, day, 3)


@pytest.mark.parametrize("line", ["30 2 * * *", "0 * * * *", "*/15 1-3 * * *", "0,30 0-4 * * *"])
def test_a_day_that_a_zone_left_out(line: str) -> None:
    day = date(2011, 12, 28)
    assert fired(line, "Pacific/Apia", day) == expected(line, "Pacific/Apia", day)


@settings(max_examples=30, deadline=None, phases=QUICKLY)
@given(LINES, st.sampled_from(ZONES), st.integers(int(seconds("2020-01-01")), int(seconds("2030-01-01"))))
def test_the_latest_moment_is_the_one_with_none_after_it(line: str, zone: str, at: int) -> None:
    try:
        cron = Cron(line, ZoneInfo(zone))
    except CronError:
        return
    latest = cron.latest(at)
    assert latest is not None
    assert latest <= at
    following = cron.after(latest)
    assert following is None or following > at


def test_a_moment_that_is_left_out_and_one_that_comes_twice() -> None:
    cron = Cron("30 2 * * *", ZoneInfo("Europe/Paris"))
    days = list(moments(cron, seconds("2026-03-28T12:00"), seconds("2026-03-31T00:00")))
    assert [datetime.fromtimestamp(at, UTC).isoformat() for at in days] == [
        "2026-03-29T01:00:00+00:00",  # 3:00, the first moment after 1:59
        "2026-03-30T00:30:00+00:00",
    ]
    days = list(moments(cron, seconds("2026-10-24T12:00"), seconds("2026-10-26T12:00")))
    assert [b - a for a, b in pairwise(days)] == [25 * 3600.0]


def test_hourly_is_each_hour_that_passes() -> None:
    at = list(
        moments(Cron("@hourly", ZoneInfo("Europe/Paris")), seconds("2026-10-24T00:00"), seconds("2026-10-26T00:00"))
    )
    assert {b - a for a, b in pairwise(at)} == {3600.0}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 32 1 *", "`32` is no day-of-month"),
        ("60 * * * *", "`60` is no minute"),
        ("* * * *", "has 4 fields, not five"),
        ("* * * * * *", "has 6 fields, not five"),
        ("", "has 0 fields"),
        ("@fortnightly", "@daily"),
        ("a b c d e", "`a` is no minute"),
        ("*/0 * * * *", "no minute"),
        ("5-1 * * * *", "no minute"),
    ],
)
def test_what_is_no_cron_line_is_told(line: str, words: str) -> None:
    with pytest.raises(CronError, match=words.replace("*", r"\*")):
        Cron(line, UTC)


def test_names_and_short_forms() -> None:
    assert Cron("0 3 * JAN mon-fri", UTC).after(0) == Cron("0 3 * 1 1-5", UTC).after(0)
    assert Cron("@Daily", UTC).after(0) == 86400.0
    assert Cron("@yearly", UTC).latest(seconds("2026-11-22")) == seconds("2026-01-01")


def test_the_latest_moment_is_found_without_going_through_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cron = Cron("* * * 1 *", UTC)
    asked = 0
    after = Cron.after

    def counted(self: Cron, moment: float) -> float | None:
        nonlocal asked
        asked += 1
        return after(self, moment)

    monkeypatch.setattr(Cron, "after", counted)
    found = cron.latest(datetime(2026, 9, 10, tzinfo=UTC).timestamp())
    assert found == datetime(2026, 1, 31, 23, 59, tzinfo=UTC).timestamp()
    assert asked < 200
