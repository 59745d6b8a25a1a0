"""How often each client may submit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparrow_supervisor.core.bucket import Buckets


def test_a_burst_and_then_as_fast_as_it_fills() -> None:
    buckets = Buckets()

    def take(client: str, now: float) -> float:
        return buckets.take(client, now, 2.0, 3)

    assert [take("a", 100.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert take("a", 100.25) == pytest.approx(0.25)
    assert take("a", 100.5) == 0.0
    assert take("a", 100.5) == pytest.approx(0.5)
    assert [take("b", 100.5) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]  # each has its own
    assert [take("a", 1000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]  # and no more than the burst


def test_a_rate_of_0_is_no_limit() -> None:
    buckets = Buckets()
    assert not any(buckets.take("a", 0.0, 0.0, 1) for _ in range(1000))


def test_a_change_takes_effect_at_once() -> None:
    buckets = Buckets()
    assert buckets.take("a", 0.0, 1.0, 1) == 0.0
    assert buckets.take("a", 0.0, 1.0, 1) == 1.0
    assert buckets.take("a", 0.0, 10.0, 1) == pytest.approx(0.1)


@given(
    rate=st.floats(0.1, 100), burst=st.integers(1, 20), gaps=st.lists(st.floats(0, 5), min_size=1, max_size=50)
)  # fmt: skip
def test_never_more_than_burst_and_rate_and_the_wait_is_true(rate: float, burst: int, gaps: list[float]) -> None:
    buckets = Buckets()
    now = taken = 0.0
    for gap in gaps:
        now += gap
        wait = buckets.take("a", now, rate, burst)
        if wait:
            now += wait + 1e-6
            assert buckets.take("a", now, rate, burst) == 0.0
        taken += 1
        assert taken <= burst + now * rate + 1e-3


def test_who_has_a_full_bucket_is_forgotten() -> None:
    buckets = Buckets()
    for number in range(5000):
        assert buckets.take(str(number), float(number), 1.0, 1) == 0.0
    assert len(buckets._left) <= 1001
