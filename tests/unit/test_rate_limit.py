"""No minute sees more requests than it may, and a server's "later" is heeded."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.rate_limit import LONGEST_HOLD_S, MINUTE_S, RateLimit, backoff, retry_after


@given(
    st.integers(1, 7),
    st.lists(st.tuples(st.floats(0, 40), st.booleans()), min_size=1, max_size=60),
)
def test_no_minute_sees_more_than_its_share(
    per_minute: int, steps: list[tuple[float, bool]]
) -> None:
    now = 0.0
    limit = RateLimit(per_minute, clock=lambda: now)
    begun: list[float] = []
    for passes, held in steps:
        now += passes
        if held:
            limit.hold(5.0)
        pause = limit.admit()
        assert pause >= (5.0 if held else 0.0) - 1e-9
        if pause:
            now += pause + 1e-6
            assert limit.admit() == 0.0
        begun.append(now)
    for first, later in zip(begun, begun[per_minute:], strict=False):
        assert later - first >= MINUTE_S - 1e-6


def test_nothing_waits_that_need_not() -> None:
    now = 0.0
    limit = RateLimit(3, clock=lambda: now)
    assert [limit.admit() for _ in range(4)] == [0.0, 0.0, 0.0, 60.0]
    now = 200.0
    assert limit.admit() == 0.0
    unlimited = RateLimit(None, clock=lambda: now)
    assert {unlimited.admit() for _ in range(1000)} == {0.0}


def test_asking_in_vain_takes_nothing() -> None:
    now = 0.0
    limit = RateLimit(1, clock=lambda: now)
    assert [limit.admit() for _ in range(100)] == [0.0, *[60.0] * 99]
    now = 60.0
    assert limit.admit() == 0.0


def test_a_server_that_asks_for_a_day_is_heeded_for_minutes_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit = RateLimit(None, clock=lambda: 0.0)
    for asked in ("86400", "inf", "1e999"):
        seconds = retry_after(asked)
        assert seconds is not None
        limit.hold(seconds)
    assert limit.admit() == LONGEST_HOLD_S
    assert len(caplog.records) == 1


def test_the_pauses_grow_and_are_capped() -> None:
    draw = random.Random(0)
    pauses = [backoff(attempt, draw) for attempt in range(40)]
    assert all(0.25 * 2**i <= pause <= 0.5 * 2**i for i, pause in enumerate(pauses[:5]))
    assert max(pauses) <= 30.0


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2030, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert retry_after("7") == 7.0
    assert retry_after("-7") == 0.0
    assert retry_after("Tue, 01 Jan 2030 12:00:30 GMT", now) == 30.0
    assert retry_after("Tue, 01 Jan 2030 11:00:00 GMT", now) == 0.0
    assert retry_after("soon") is None
    assert retry_after("Thu, 01 Jan 99999 00:00:00 GMT") is None
    assert retry_after("nan") == 0.0
    assert retry_after(None) is None
