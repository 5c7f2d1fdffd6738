"""A real engine whose cache is too small for what it may run: what is admitted comes down to it."""

from __future__ import annotations

from typing import Any

import pytest

from actors.engines.backends import make_backend
from actors.engines.models import load_tokenizer
from actors.engines.replica import ReplicaCore
from specs.engine import Answer, Request, Sampling
from specs.engine_section import EngineSection
from tests.ray.command import LONG

pytest.importorskip("vllm")
pytestmark = [LONG, pytest.mark.slow]

MOST, ASKED = 24, 36


async def test_what_is_admitted_comes_down_to_what_the_cache_holds() -> None:
    # Some 2,300 tokens, of which each request comes to hold 260.
    config = EngineSection(window=512, max_running=MOST, kv_cache_gb=0.05)
    tokenizer: Any = load_tokenizer("smollm2-135m")
    core = ReplicaCore(make_backend(config, "v0"), "v0")
    await core.start()
    try:
        asked = [
            Request(
                f"q{number}",
                Sampling(160, number, temperature=1.0),
                tokens=tuple(tokenizer(f"{number}. Once there were " * 12).input_ids[:100]),
                deadline_s=500.0,
            )
            for number in range(ASKED)
        ]
        await core.submit("c", asked)
        answers: list[Answer] = []
        limits, acknowledged = [], 0
        while len(answers) < ASKED:
            polled = await core.poll("c", acknowledged, 5.0)
            limits.append(polled.load.limit)
            answers += [answer for _, answer in polled.answers]
            acknowledged = polled.answers[-1][0] if polled.answers else acknowledged
        stats = await core.stats()
    finally:
        await core.stop()
    assert all(answer.failure is None for answer in answers)
    assert stats.preemptions > 0
    assert limits[0] == MOST
    assert 4 <= min(limits) <= 16
