"""The limit of an engine follows what its cache holds, and never starves it."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.admission import DECREASE, STEPS, WINDOW_S, Admission
from specs.engine import EngineStats

SEEN = st.builds(
    EngineStats,
    running=st.integers(0, 300),
    waiting=st.integers(0, 300),
    finished=st.integers(0, 300),
    preemptions=st.integers(0, 3),
    kv_cache_use=st.floats(0, 1),
)


@given(
    st.integers(1, 256),
    st.integers(0, 8),
    st.lists(st.tuples(st.floats(0.01, 3.0), SEEN), max_size=80),
)
def test_the_limit_stays_in_its_bounds_and_falls_once_a_window(
    most: int, least: int, seen: list[tuple[float, EngineStats]]
) -> None:
    admission = Admission(most, least)
    now, fell, finished, preemptions = 0.0, -WINDOW_S, 0, 0
    for seconds, stats in seen:
        now += seconds
        finished, preemptions = finished + stats.finished, preemptions + stats.preemptions
        before = admission.limit
        told = EngineStats(
            running=stats.running,
            waiting=stats.waiting,
            finished=finished,
            preemptions=preemptions,
            kv_cache_use=stats.kv_cache_use,
        )
        admission.observe(now, told)
        after = admission.limit
        assert min(most, max(1, least)) <= after <= most
        assert after - before <= -(-most // STEPS)
        if after < before:
            assert now - fell >= WINDOW_S
            fell = now


@dataclass
class Bounded:
    """An engine of which all is known at once: above so many it preempts."""

    holds: int
    now: float = 0.0
    finished: int = 0
    preemptions: int = 0

    def observed(self, admission: Admission, seconds: float) -> list[int]:
        limits = []
        for _ in range(int(seconds / 0.1)):
            self.now += 0.1
            running = min(admission.limit, self.holds)
            self.finished += max(1, running // 10)  # a turn takes a second
            self.preemptions += admission.limit > self.holds
            stats = EngineStats(
                running=running,
                waiting=admission.limit - running,
                finished=self.finished,
                preemptions=self.preemptions,
                kv_cache_use=running / self.holds,
            )
            admission.observe(self.now, stats)
            limits.append(admission.limit)
        return limits


@given(st.integers(4, 256), st.integers(1, 300))
def test_it_settles_near_what_the_engine_holds_and_recovers(most: int, holds: int) -> None:
    admission, engine = Admission(most), Bounded(holds)
    engine.observed(admission, 30.0)
    settled = engine.observed(admission, 60.0)
    step = -(-most // STEPS)
    assert min(settled) >= min(most, max(1, int(DECREASE * min(holds, most)) - 1))
    assert max(settled) <= min(most, holds + step)
    engine.holds = 2 * most  # whatever took the room has gone
    assert engine.observed(admission, 100.0)[-1] == most


def test_an_engine_that_tells_no_load_keeps_the_most() -> None:
    admission = Admission(48)
    for second in range(100):
        admission.observe(second, EngineStats(running=48, finished=second))
    assert admission.limit == 48


def test_what_waits_for_its_prompt_lowers_nothing() -> None:
    """A burst of long prompts: they wait for their turn to be computed, and there is room."""
    admission = Admission(48)
    for second in range(20):
        stats = EngineStats(running=2 + second, waiting=46 - second, kv_cache_use=second / 48)
        admission.observe(second, stats)
    assert admission.limit == 48


def test_what_is_at_work_already_is_waited_for() -> None:
    admission = Admission(100)

    def told(second: float, running: int, waiting: int, preemptions: int) -> int:
        stats = EngineStats(
            running=running, waiting=waiting, kv_cache_use=1.0, preemptions=preemptions
        )
        admission.observe(second, stats)
        return admission.limit

    told(0.0, 50, 50, 0)
    assert told(1.0, 50, 50, 9) == 45
    for second in range(2, 20):
        assert told(second, 45, 10, second * 9) == 45
    assert told(20.0, 45, 0, 171) == 45
    assert told(29.0, 45, 0, 171) == 45  # full, and content
    assert told(30.0, 45, 0, 172) == 40


def test_a_request_wider_than_the_limit_does_not_hold_it_down() -> None:
    admission = Admission(32)
    for second in range(10):
        stats = EngineStats(running=1, finished=second, preemptions=second)
        admission.observe(second, stats)
    assert admission.limit == 1
    for second in range(10, 200):  # whose four candidates run at once
        admission.observe(second, EngineStats(running=4, finished=4 * second, preemptions=9))
    assert admission.limit > 4


@dataclass
class Sequence:
    prompt: int
    answer: int
    computed: int  # of its prompt, the rest is in the prefix cache
    said: int = 0

    @property
    def tokens(self) -> int:
        return self.prompt + self.said


@dataclass
class Simulated:
    """An engine that schedules as vLLM does: what runs grows by a token a step, the last to come is
    thrown out where the cache is full, and its prompt computed anew.

    Seconds of a step are those of a 7B model on a large GPU, in their order of magnitude.
    """

    cache: int
    prompts: tuple[int, int]
    answers: tuple[int, int]
    fresh: float  # share of a prompt that the prefix cache does not hold
    now: float = 0.0
    used: int = 0
    finished: int = 0
    preemptions: int = 0
    running: list[Sequence] = field(default_factory=list)
    waiting: deque[Sequence] = field(default_factory=deque)
    draws: random.Random = field(default_factory=lambda: random.Random(1))

    def step(self, limit: int) -> None:
        while len(self.running) + len(self.waiting) < limit:
            prompt = self.draws.randrange(*self.prompts)
            answer = self.draws.randrange(*self.answers)
            self.waiting.append(Sequence(prompt, answer, int(self.fresh * prompt)))
        crowded = self._grow()
        computed = 0
        while self.waiting and not crowded and computed < 2048:
            if self.used + self.waiting[0].tokens > self.cache:
                break
            self.running.append(self.waiting.popleft())
            self.used += self.running[-1].tokens
            computed += self.running[-1].computed
        self.now += 0.015 + 0.0002 * len(self.running) + 0.0001 * computed
        ended = [one for one in self.running if one.said >= one.answer]
        self.used -= sum(one.tokens for one in ended)
        self.finished += len(ended)
        self.running = [one for one in self.running if one.said < one.answer]

    def _grow(self) -> bool:
        """Decode a token of everything that runs; returns whether something was thrown out."""
        before = self.preemptions
        for place in itertools.count():
            while place < len(self.running) and self.used >= self.cache:
                thrown = self.running.pop()
                self.used -= thrown.tokens
                thrown.computed = thrown.tokens
                self.waiting.appendleft(thrown)
                self.preemptions += 1
            if place >= len(self.running):
                return self.preemptions > before
            self.running[place].said += 1
            self.used += 1
        raise AssertionError

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            running=len(self.running),
            waiting=len(self.waiting),
            finished=self.finished,
            preemptions=self.preemptions,
            kv_cache_use=self.used / self.cache,
        )


def finished(engine: Simulated, limit: Callable[[Simulated], int]) -> int:
    """Return the requests that end in two minutes, after one in which it settles."""
    while engine.now < 60:
        engine.step(limit(engine))
    before = engine.finished
    while engine.now < 180:
        engine.step(limit(engine))
    return engine.finished - before


@pytest.mark.parametrize(
    ("cache", "prompts", "answers", "fresh", "gain"),
    [
        (40_000, (500, 1500), (40, 200), 0.15, 1.02),  # turns of dialogues, their history cached
        (40_000, (300, 600), (300, 900), 1.0, 1.04),  # dialogues written at once
        (40_000, (100, 300), (100, 500), 1.0, 1.08),
    ],
    ids=["turns", "whole dialogues", "long answers"],
)
def test_too_small_a_cache_is_found_and_used_well(
    cache: int, prompts: tuple[int, int], answers: tuple[int, int], fresh: float, gain: float
) -> None:
    def fixed(limit: int) -> int:
        return finished(Simulated(cache, prompts, answers, fresh), lambda _: limit)

    admission = Admission(256)

    def adapted(engine: Simulated) -> int:
        admission.observe(engine.now, engine.stats)
        return admission.limit

    reached = finished(Simulated(cache, prompts, answers, fresh), adapted)
    assert reached >= 0.9 * max(fixed(limit) for limit in (16, 24, 32, 40, 48, 64, 80, 96, 128))
    assert reached >= gain * fixed(256)


def test_a_large_enough_cache_is_used_whole() -> None:
    admission, engine = Admission(64), Simulated(400_000, (500, 1500), (40, 200), 0.15)
    while engine.now < 30:
        engine.step(admission.limit)
        admission.observe(engine.now, engine.stats)
        assert admission.limit == 64
