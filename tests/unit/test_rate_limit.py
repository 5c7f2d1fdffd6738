"""No minute sees more requests than it may, and a server's "later" is heeded."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from actors.engines.rate_limit import MINUTE_S, RateLimit, backoff, retry_after


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
        at = now + limit.reserve()
        assert at >= now + (5.0 if held else 0.0) - 1e-9
        begun.append(at)
    # `now + (at - now)` may differ from `at` by a rounding.
    assert all(later >= first - 1e-9 for first, later in pairwise(begun))
    for first, later in zip(begun, begun[per_minute:], strict=False):
        assert later - first >= MINUTE_S - 1e-6


def test_nothing_waits_that_need_not() -> None:
    now = 0.0
    limit = RateLimit(3, clock=lambda: now)
    assert [limit.reserve() for _ in range(4)] == [0.0, 0.0, 0.0, 60.0]
    now = 200.0
    assert limit.reserve() == 0.0
    unlimited = RateLimit(None, clock=lambda: now)
    assert {unlimited.reserve() for _ in range(1000)} == {0.0}


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
    assert retry_after(None) is None
