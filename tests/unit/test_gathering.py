"""What is asked for within a moment goes together, and each gets its own answer or error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from actors.gathering import Gathering


async def test_what_is_asked_together_is_sent_together_in_its_order() -> None:
    sent: list[list[int]] = []

    async def double(numbers: Sequence[int]) -> list[int]:
        sent.append(list(numbers))
        return [2 * number for number in numbers]

    gathering = Gathering(double, 0.0)
    assert await asyncio.gather(*(gathering.ask(number) for number in (3, 1, 2))) == [6, 2, 4]
    assert await gathering.ask(4) == 8
    assert sent == [[3, 1, 2], [4]]


async def test_an_error_is_its_own_and_what_cannot_be_sent_fails_all() -> None:
    async def outcomes(numbers: Sequence[int]) -> list[object]:
        if len(numbers) > 2:
            raise OSError("away")
        return [ValueError("odd") if number % 2 else number for number in numbers]

    gathering = Gathering(outcomes, 0.0)
    odd, even = await asyncio.gather(*map(gathering.ask, (1, 2)), return_exceptions=True)
    assert isinstance(odd, ValueError)
    assert even == 2
    failed = await asyncio.gather(*map(gathering.ask, (2, 4, 6)), return_exceptions=True)
    assert [str(error) for error in failed] == ["away"] * 3
    assert await gathering.ask(8) == 8


async def test_what_nobody_waits_for_is_not_sent() -> None:
    sent: list[int] = []

    async def note(numbers: Sequence[int]) -> list[int]:
        sent.extend(numbers)
        return list(numbers)

    gathering = Gathering(note, 0.01)
    leaving = asyncio.ensure_future(gathering.ask(1))
    staying = asyncio.ensure_future(gathering.ask(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == 2
    assert sent == [2]
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_what_comes_while_others_are_under_way_waits_for_nobody() -> None:
    answered = asyncio.Event()

    async def slow_then_fast(numbers: Sequence[int]) -> list[int]:
        if 1 in numbers:
            await answered.wait()
        return list(numbers)

    gathering = Gathering(slow_then_fast, 0.0)
    first = asyncio.ensure_future(gathering.ask(1))
    await asyncio.sleep(0.01)
    assert await gathering.ask(2) == 2
    answered.set()
    assert await first == 1
