from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actors import sink_client
from actors.sink import LoggedTurn
from actors.sink_client import RaySinks
from specs.errors import DuologueError
from tests.unit.durable_samples import make_turn

TURNS = 20


class Sink:
    """A sink's handle whose `turns` waits for `open`, and may fail."""

    def __init__(self) -> None:
        self.turns = self
        self.open, self.all = asyncio.Event(), asyncio.Event()
        self.taken: list[tuple[int, int]] = []
        self.error: Exception | None = None

    async def remote(self, turns: Sequence[LoggedTurn]) -> tuple[int, ...]:
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.taken += [(one.index, one.turn.index) for one in turns]
        if len(self.taken) == TURNS:
            self.all.set()
        return ()


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Sink], RaySinks]:
    monkeypatch.setattr(sink_client, "INTERVAL_S", 0.0)
    monkeypatch.setattr(sink_client, "WAITING", 3)
    handles: list[Any] = [Sink(), Sink()]
    return handles, RaySinks(handles)


async def say(sinks: RaySinks, index: int, count: int) -> None:
    for number in range(count):
        await sinks.turn(index, f"walk-{index}", 1, make_turn(number))


async def test_a_sink_that_waits_lets_its_dialogues_wait_and_nobody_elses(
    pair: tuple[list[Sink], RaySinks],
) -> None:
    (stuck, free), sinks = pair
    free.open.set()
    waiting = asyncio.create_task(say(sinks, 0, TURNS))
    await say(sinks, 1, TURNS)
    await free.all.wait()
    assert free.taken == [(1, number) for number in range(TURNS)]
    assert not waiting.done()
    stuck.open.set()
    await waiting
    await sinks.flush()
    assert stuck.taken == [(0, number) for number in range(TURNS)]


async def test_a_sink_that_fails_keeps_nobody_waiting(
    pair: tuple[list[Sink], RaySinks],
) -> None:
    (failed, _), sinks = pair
    failed.open.set()
    failed.error = DuologueError("the disk is full")
    await say(sinks, 0, TURNS)
    await sinks.flush()
    assert failed.taken == []
