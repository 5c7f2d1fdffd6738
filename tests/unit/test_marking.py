"""A judge's ratings of predictions, and what is kept of them when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from specs.agent_format import ChatMessage
from specs.errors import Unavailable
from trainer.evaluation import ChatDialogue, Prediction
from trainer.figures import Marked
from trainer.marking import rated

ANSWERS = 12


def marked() -> list[Marked]:
    made = (Prediction("w", n, n, "answer", "Mint.", "Mint.") for n in range(ANSWERS))
    return [Marked(one) for one in made]


async def rate_all(rate: Any, at_once: int = 2) -> list[Marked]:
    """Rate all answers; raises what `rate` does, and notes what was saved in `rate.saved`."""

    def save(kept: Sequence[Marked]) -> None:
        rate.saved = [one.rating for one in kept]

    dialogues = [ChatDialogue("w", (ChatMessage("user", "Tea?"),))]
    return await rated(marked(), dialogues, rate, at_once, save)


class Rate:
    """Rates until it fails."""

    def __init__(self, good: int, slow: bool = False) -> None:
        self.good, self.slow = good, slow
        self.calls = 0
        self.saved: list[float | None] = []

    async def __call__(self, name: str, before: Sequence[ChatMessage], answer: str) -> float:
        self.calls += 1
        if self.calls > self.good + 1:
            try:
                await asyncio.Event().wait()
            finally:
                if self.slow:
                    await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.calls > self.good:
            raise Unavailable("gone")
        return 4.0


async def test_a_judge_that_has_failed_is_asked_for_nothing_more() -> None:
    rate = Rate(good=4)
    with pytest.raises(Unavailable, match="gone"):
        await rate_all(rate)
    calls = rate.calls
    await asyncio.sleep(0.05)
    assert rate.calls == calls < ANSWERS
    assert 0 < sum(one is not None for one in rate.saved) < ANSWERS


async def test_ratings_are_kept_by_whoever_is_interrupted_again() -> None:
    rate = Rate(good=4, slow=True)
    task = asyncio.ensure_future(rate_all(rate))
    await asyncio.sleep(0.05)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises((asyncio.CancelledError, Unavailable)):
        await task
    assert 4.0 in rate.saved
