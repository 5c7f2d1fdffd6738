"""Where a turn's time goes: every second counts once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.laps import (
    BOUNDS,
    CHECKS,
    COUNTED,
    DECODE,
    PHASES,
    PREFILL,
    PROMPT,
    QUEUE,
    REST,
    RETRIEVAL,
    TOOLS,
    TRANSPORT,
    WHOLE,
    Lap,
    Laps,
    answered,
    asked_again,
    begin_laps,
    spent,
)
from specs.engine import Answer

seconds = st.floats(0, 100)
NOW = 5000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still."""
    monkeypatch.setattr("actors.laps.perf_counter", lambda: NOW)


def lap(whole: float, spent: dict[int, float]) -> Lap:
    """A lap whose phases have taken so long when it is added at once."""
    made = Lap(since=NOW - whole)
    for phase, one in spent.items():
        made.seconds[phase] = one
    return made


@given(
    st.lists(
        st.tuples(
            st.fixed_dictionaries(
                dict.fromkeys((PROMPT, QUEUE, PREFILL, DECODE, RETRIEVAL, CHECKS), seconds)
            ),
            seconds,
            seconds,
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 30),
)
def test_all_seconds_of_all_turns_are_in_one_phase_each(
    turns: list[tuple[dict[int, float], float, float]], cut: int
) -> None:
    parts = Laps(), Laps()
    for number, (phases, way, rest) in enumerate(turns):
        asked = phases[QUEUE] + phases[PREFILL] + phases[DECODE] + way
        whole = phases[PROMPT] + asked + phases[RETRIEVAL] + phases[CHECKS] + rest
        parts[number < cut].add(lap(whole, {**phases, TRANSPORT: asked}))
    laps = parts[0].plus(parts[1])
    assert laps.turns == len(turns)
    for phase in (PROMPT, QUEUE, PREFILL, DECODE, RETRIEVAL, CHECKS):
        expected = sum(phases[phase] for phases, _, _ in turns)
        assert laps.seconds[phase] == pytest.approx(expected, abs=1e-6)
    assert laps.seconds[TRANSPORT] == pytest.approx(sum(way for _, way, _ in turns), abs=1e-6)
    assert laps.seconds[REST] == pytest.approx(sum(rest for _, _, rest in turns), abs=1e-6)
    for name in (WHOLE, *COUNTED):
        at_most = laps.at_most(name)
        assert at_most[-1] == len(turns)
        assert list(at_most) == sorted(at_most)
    decodes = [phases[DECODE] for phases, _, _ in turns]
    expected_counts = [sum(one <= bound for one in decodes) for bound in BOUNDS]
    assert list(laps.at_most("decode"))[:-1] == expected_counts


async def test_concurrent_dialogues_are_told_apart() -> None:
    retries: Counter[str] = Counter()
    laps = {"short": Laps(), "long": Laps()}

    async def play(name: str, decode_s: float, turns: int) -> None:
        mine = begin_laps(retries)
        for _ in range(turns):
            await asyncio.sleep(0)  # the other one has its turn
            answered(Answer("a", decode_s=decode_s), NOW - 1000.0)
            asked_again(name)
            laps[name].add(mine)

    await asyncio.gather(
        asyncio.create_task(play("short", 1.0, 3)), asyncio.create_task(play("long", 100.0, 5))
    )
    assert {name: (one.summed().turns, one.seconds[DECODE]) for name, one in laps.items()} == {
        "short": (3, 3.0),
        "long": (5, 500.0),
    }
    assert laps["short"].seconds[TRANSPORT] == pytest.approx(2997.0)
    assert retries == {"short": 3, "long": 5}


def test_nothing_is_measured_where_nobody_has_begun() -> None:
    async def alone() -> None:
        spent(TOOLS, NOW)
        answered(Answer("a"), NOW)
        asked_again("repair")

    asyncio.run(alone())


def test_turns_of_one_request_have_their_shares() -> None:
    whole = lap(8.0, {TRANSPORT: 6.0, DECODE: 4.0})
    laps = Laps()
    for _ in range(4):
        laps.add(whole.part(4))
    assert laps.summed().turns == 4
    assert laps.seconds[DECODE] == pytest.approx(4.0)
    assert laps.seconds[TRANSPORT] == pytest.approx(2.0)
    assert laps.whole_s == pytest.approx(8.0)
    assert laps.at_most("decode")[BOUNDS.index(1.0)] == 4


def test_what_an_engine_tells_beyond_the_time_there_was_is_nobodys() -> None:
    laps = Laps()
    laps.add(lap(1.0, {TRANSPORT: 0.5, DECODE: 0.9}))
    assert laps.summed().seconds[TRANSPORT] == 0.0
    assert all(one >= 0 for one in laps.seconds)
    assert len(laps.seconds) == len(PHASES)
