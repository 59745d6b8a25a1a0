"""A job every minute fires within a second of its minute."""

from __future__ import annotations

import pytest

from tests.support.house import House
from tests.support.stress import FACTOR, Figure
from tests.support.waiting import eventually

pytestmark = pytest.mark.stress

MINUTES = 10 if FACTOR >= 10 else 1


@pytest.mark.timeout(60 * (MINUTES + 2))
def test_each_minute(house: House, figure: Figure) -> None:
    house.start()
    house.sparrow("schedule", "add", "tick", "--cron", "* * * * *", "--overlap", "allow", "date", "+%s.%N").ok()

    def ended() -> list[str]:
        rows = house.ps("--status", "completed")
        return [row["run"] for row in rows if row.get("job") == "tick"]

    runs = eventually(lambda: found if len(found := ended()) >= MINUTES else None, 60 * (MINUTES + 1), "the firings")
    late = [float(house.printed(run)) % 60 for run in runs or []]
    figure(f"on time: {len(late)} minutes, a job's first line at most {max(late) * 1000:.0f} ms after its minute")
    assert max(late) < 1
    assert len(late) == len({int(float(house.printed(run)) // 60) for run in runs or []})
