"""Tokens a second of our training loop beside a plain loop over the same batches, and padding.

Both train the same model on the same batches in the same process, by turns, so that whatever else
the machine does falls on both. Figures only: nothing here passes or fails on time.

DUOLOGUE_BENCH_STEPS (12), DUOLOGUE_BENCH_ROUNDS (2), DUOLOGUE_BENCH_METHOD (lora).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from actors.engines.models import resolve_model
from specs.run_file import TrainSection
from trainer import weights
from trainer.chat_template import IGNORED
from trainer.data import Course, Examples, Layout, Passes
from trainer.loop import Place, Row, fit
from trainer.packing import narrowed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

STEPS = int(os.environ.get("DUOLOGUE_BENCH_STEPS", "12"))
ROUNDS = int(os.environ.get("DUOLOGUE_BENCH_ROUNDS", "2"))
METHOD = os.environ.get("DUOLOGUE_BENCH_METHOD", "lora")
WINDOW = 512
NONE = Examples(np.zeros(0, np.int32), np.zeros(0, np.bool_), np.zeros(1, np.int64))


def section() -> TrainSection:
    return TrainSection.model_validate(
        {
            "method": METHOD,
            "window": WINDOW,
            "batch": 1,
            "accumulate": 1,
            "epochs": 100,
            "max_steps": STEPS,
            "checkpoint_steps": 10_000,
            "schedule": "constant",
            "warmup": 0,
        }
    )


def examples(count: int) -> Examples:
    """Return dialogues of the lengths that real ones have: lognormal, half of them learned."""
    draws = np.random.default_rng(0)
    lengths = np.clip(draws.lognormal(5.2, 0.6, count), 24, WINDOW).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = draws.integers(1000, 20_000, starts[-1]).astype(np.int32)
    return Examples(ids, draws.random(starts[-1]) < 0.5, starts)


@dataclass
class Timed:
    """Tokens a second from the end of the first step to the end of the last."""

    ours: list[float]
    plain: list[float]


def test_our_loop_beside_a_plain_one() -> None:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    settings, data = section(), examples(60)
    layout = Layout.of(data.lengths, settings, 1, packed=True)
    course = Course.of(layout, settings)
    counted = sum(course.tokens()[1:])
    timed = Timed([], [])
    for _ in range(ROUNDS):
        timed.ours.append(counted / ours(settings, data))
        timed.plain.append(counted / plain(settings, Passes(data, course, 0, 0)))
    print(f"\n{METHOD}, {STEPS} steps of {WINDOW} tokens, by turns, tokens/s")
    print(f"  ours  {told(timed.ours)}\n  plain {told(timed.plain)}")
    print(f"  ratio {sum(timed.ours) / sum(timed.plain):.3f}")
    assert min(*timed.ours, *timed.plain) > 0


def told(speeds: Sequence[float]) -> str:
    return "  ".join(f"{speed:.0f}" for speed in speeds)


def model(settings: TrainSection) -> Any:
    from transformers import set_seed

    set_seed(0)
    return weights.build(settings, resolve_model("smollm2-135m"), gpu=False)


def ours(settings: TrainSection, data: Examples) -> float:
    times: dict[int, float] = {}

    def note(rows: Sequence[Row]) -> None:
        times.setdefault(rows[-1]["step"], time.perf_counter())

    fit(settings, model(settings), 0, data, NONE, Place(note=note))
    return times[STEPS] - times[1]


def plain(settings: TrainSection, passes: Passes) -> float:
    import torch

    learner = model(settings)
    learner.train()
    trained = [value for value in learner.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    began = 0.0
    for number in range(len(passes)):
        batch = narrowed(passes[number])  # ours does so too: the loop is what differs
        count = (batch["labels"] != IGNORED).sum()
        loss = learner(**batch, num_items_in_batch=count).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())
        began = began or time.perf_counter()
    return time.perf_counter() - began


def test_padding() -> None:
    draws = random.Random(0)
    lengths = [min(2048, max(40, int(draws.lognormvariate(6.3, 0.5)))) for _ in range(2000)]
    print(f"\npadding of {len(lengths)} dialogues of {sum(lengths) / len(lengths):.0f} tokens")
    for packed in (True, False):
        for batch in (1, 4):
            settings = TrainSection(window=2048, batch=batch)
            layout = Layout.of(lengths, settings, 2, packed)
            way = "packed into 2048" if packed else "grouped by length"
            print(f"  {way}, {batch} a batch: {layout.padding():.2%}")
            assert layout.padding() < 0.05
