"""Tokens a second of our training loop beside a plain loop over the same batches, and padding.

Both train the same model on the same batches in the same process, by turns, so that whatever else
the machine does falls on both. On a GPU also QLoRA of a model of the shape of Llama 2 7B with
random weights, its memory and its share of what the GPU can multiply. Figures only: nothing here
passes or fails on time.

DUOLOGUE_BENCH_STEPS (12), DUOLOGUE_BENCH_ROUNDS (2), DUOLOGUE_BENCH_METHOD (lora),
DUOLOGUE_BENCH_PEAK (989: dense bf16 TFLOP/s of the GPU, of an H100 or H200 SXM by its data sheet).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.engines.models import resolve_model
from specs.chat_template import IGNORED
from specs.run_file import TrainSection
from trainer import weights
from trainer.data import Course, Examples, Layout, Passes
from trainer.loop import Place, Row, fit
from trainer.packing import narrowed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

STEPS = int(os.environ.get("DUOLOGUE_BENCH_STEPS", "12"))
ROUNDS = int(os.environ.get("DUOLOGUE_BENCH_ROUNDS", "2"))
METHOD = os.environ.get("DUOLOGUE_BENCH_METHOD", "lora")
PEAK = float(os.environ.get("DUOLOGUE_BENCH_PEAK", "989")) * 1e12
WINDOW = 512
LLAMA_2_7B: dict[str, Any] = {
    "vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 11_008,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}  # fmt: skip
GPU = torch.cuda.is_available()
NONE = Examples(np.zeros(0, np.int32), np.zeros(0, np.bool_), np.zeros(1, np.int64))


def section(**other: Any) -> TrainSection:
    return TrainSection.model_validate(
        {
            "method": METHOD,
            "window": WINDOW,
            "batch": 1,
            "accumulate": 1,
            "epochs": 1000,
            "max_steps": STEPS,
            "checkpoint_steps": 10_000,
            "schedule": "constant",
            "warmup": 0,
            **other,
        }
    )


def examples(count: int, window: int = WINDOW) -> Examples:
    """Return dialogues of the lengths that real ones have: lognormal, half of them learned."""
    draws = np.random.default_rng(0)
    lengths = np.clip(draws.lognormal(5.2, 0.6, count) * window / 512, 24, window).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = draws.integers(1000, 20_000, starts[-1]).astype(np.int32)
    return Examples(ids, draws.random(starts[-1]) < 0.5, starts)


@dataclass
class Timed:
    """Tokens a second from the end of the first step to the end of the last."""

    ours: list[float]
    plain: list[float]


def test_our_loop_beside_a_plain_one() -> None:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    compared("smollm2-135m", section(), examples(60))


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a GPU, and CUDA sees none here")
@pytest.mark.parametrize(("window", "checkpointing"), [(2048, True), (4096, True), (2048, False)])
def test_qlora_of_a_7b(shaped: Path, window: int, checkpointing: bool) -> None:
    torch.cuda.reset_peak_memory_stats()
    settings = section(
        method="qlora", rank=64, alpha=16, dropout=0.1, window=window, batch=8192 // window,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    compared(str(shaped), settings, examples(200, window))
    memory = torch.cuda.max_memory_allocated() / 2**30
    again = "with" if checkpointing else "without"
    print(f"  {torch.cuda.get_device_name()}, {again} gradient checkpointing; {memory:.1f} GiB")


@pytest.fixture(scope="module")
def shaped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of the shape of Llama 2 7B with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama-2-7b-shaped")
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            made: Any = LlamaForCausalLM
            made(LlamaConfig(**LLAMA_2_7B)).save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.cuda.empty_cache()
    return folder


def compared(name: str, settings: TrainSection, data: Examples) -> None:
    """Train by turns, and print what each came to."""
    layout = Layout.of(data.lengths, settings, 1, packed=True)
    course = Course.of(layout, settings)
    counted = sum(course.tokens()[1:])
    timed = Timed([], [])
    for _ in range(ROUNDS):
        timed.ours.append(counted / ours(name, settings, data))
        timed.plain.append(counted / plain(name, settings, Passes(data, course, 0, 0)))
    shape = f"{settings.batch} x {settings.window}"
    print(f"\n{settings.method}, {STEPS} steps of {shape} tokens, by turns, tokens/s")
    print(f"  ours  {told(timed.ours)}\n  plain {told(timed.plain)}")
    print(f"  ratio {sum(timed.ours) / sum(timed.plain):.3f}")
    if GPU:
        # Forwards and back to the inputs through frozen weights: 2 products with each weight.
        flops = 4 * counted_weights(name) * max(timed.ours)
        print(f"  {flops / 1e12:.0f} TFLOP/s of the model's, {flops / PEAK:.1%} of the bf16 peak")
    assert min(*timed.ours, *timed.plain) > 0


def counted_weights(name: str) -> int:
    """Return the weights of a model's matrices; its embedding is looked up, not multiplied."""
    from transformers import AutoConfig, AutoModelForCausalLM

    made: Any = AutoModelForCausalLM
    with torch.device("meta"):
        learner = made.from_config(AutoConfig.from_pretrained(resolve_model(name)))
    layers = [one for one in learner.modules() if isinstance(one, torch.nn.Linear)]
    return sum(one.weight.numel() for one in layers)


def told(speeds: Sequence[float]) -> str:
    return "  ".join(f"{speed:.0f}" for speed in speeds)


def model(name: str, settings: TrainSection) -> Any:
    from transformers import set_seed

    set_seed(0)
    if GPU:
        torch.cuda.empty_cache()
    return weights.build(settings, resolve_model(name), GPU)


def ours(name: str, settings: TrainSection, data: Examples) -> float:
    times: dict[int, float] = {}

    def note(rows: Sequence[Row]) -> None:
        times.setdefault(rows[-1]["step"], time.perf_counter())

    fit(settings, model(name, settings), 0, data, NONE, Place(gpu=GPU, note=note))
    return times[STEPS] - times[1]


def plain(name: str, settings: TrainSection, passes: Passes) -> float:
    learner = model(name, settings)
    learner.train()
    trained = [value for value in learner.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    device = trained[0].device
    began = 0.0
    for number in range(len(passes)):
        batch = narrowed(passes[number])  # ours does so too: the loop is what differs
        count = (batch["labels"] != IGNORED).sum().to(device)
        given = {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
        loss = learner(**given, num_items_in_batch=count).loss
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
