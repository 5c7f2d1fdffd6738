"""Packed examples stay apart, none is lost, and little is computed for padding."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.chat_template import IGNORED, Encoded
from trainer.packing import (
    collate_packed,
    collate_padded,
    keeps_apart,
    length_grouped_batches,
    narrowed,
    narrows,
    pack,
    padding_share,
)

VOCABULARY = 50


@cache
def model(attention: str, kind: str = "llama") -> Any:
    """A tiny random model whose tokens look at each other for all they are worth."""
    import torch
    import transformers

    library: Any = transformers
    torch.manual_seed(0)
    if kind == "mamba":
        made = library.MambaForCausalLM(
            library.MambaConfig(
                vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=2
            )
        )
    else:
        config = library.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            initializer_range=0.3,
            attn_implementation=attention,
        )
        made = library.LlamaForCausalLM(config)
    return made.eval()


def example(seed: int, length: int) -> Encoded:
    draws = random.Random(seed)
    ids = [draws.randrange(1, VOCABULARY) for _ in range(length)]
    return Encoded(ids, [draws.random() < 0.5 for _ in range(length)])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_packed_example_gives_the_logits_that_it_gives_alone(attention: str) -> None:
    import torch

    sequences = [
        [example(1, 11), example(2, 1), example(3, 17)],
        [example(4, 5), example(5, 9)],
    ]
    packed = collate_packed(sequences, pad=0)
    with torch.no_grad():
        logits = model(attention)(**packed).logits
        for row, sequence in enumerate(sequences):
            start = 0
            for one in sequence:
                alone = model(attention)(input_ids=torch.tensor([one.ids])).logits[0]
                together = logits[row, start : start + len(one.ids)]
                assert (together - alone).abs().max() < 1e-4
                start += len(one.ids)
        # With a cache, which models keep unless told otherwise, they do look at each other.
        careless = model(attention)(**packed | {"use_cache": True}).logits
        assert (careless[0, 12:29] - logits[0, 12:29]).abs().max() > 0.1


def test_the_loss_of_a_pack_is_that_of_its_examples() -> None:
    import torch

    examples = [example(seed, length) for seed, length in ((1, 12), (2, 20), (3, 7), (4, 15))]
    packed = collate_packed([examples[:2], examples[2:]], pad=0)
    padded = collate_padded(examples, pad=0)
    with torch.no_grad():
        one = model("sdpa")(**packed).loss
        other = model("sdpa")(**padded).loss
    assert abs(float(one - other)) < 1e-5
    assert int((packed["labels"] != IGNORED).sum()) == int((padded["labels"] != IGNORED).sum())


def test_what_a_batch_holds() -> None:
    one = Encoded([5, 6, 7], [True, False, True])
    two = Encoded([8, 9], [True, True])
    batch = collate_packed([[one, two], [two]], pad=3)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9], [8, 9, 3, 3, 3]]
    hidden = IGNORED
    assert batch["labels"].tolist() == [
        [hidden, hidden, 7, hidden, 9],
        [hidden, 9, hidden, hidden, hidden],
    ]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 1, 2]]
    assert "attention_mask" not in batch
    assert batch["use_cache"] is False
    padded = collate_padded([one, two], pad=3)
    assert padded["input_ids"].tolist() == [[5, 6, 7], [8, 9, 3]]
    assert padded["labels"].tolist() == [[hidden, hidden, 7], [hidden, 9, hidden]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_model_is_asked_whether_it_keeps_examples_apart() -> None:
    assert keeps_apart(model("sdpa"), VOCABULARY)
    assert keeps_apart(model("eager").train(), VOCABULARY)
    assert model("eager").training
    assert not keeps_apart(model("sdpa", "mamba"), VOCABULARY)


def test_a_narrowed_batch_teaches_what_the_whole_one_does() -> None:
    import torch

    one, two, three = example(1, 12), example(2, 20), example(3, 7)
    quiet = Encoded(one.ids, [False] * len(one.ids))
    for whole in (
        collate_packed([[one, two], [three]], pad=0),
        collate_padded([one, two, quiet], pad=0),
    ):
        losses, gradients = [], []
        for batch in (whole, narrowed(whole)):
            learner = model("sdpa")
            learner.zero_grad()
            loss = learner(**batch).loss
            loss.backward()
            losses.append(loss.item())
            gradients.append(learner.get_input_embeddings().weight.grad.clone())
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    batch = narrowed(collate_padded([quiet], pad=0))
    assert batch["logits_to_keep"].tolist() == [0]
    assert batch["labels"].tolist() == [[IGNORED]]


def test_a_model_is_asked_whether_it_narrows_its_loss() -> None:
    learner = model("sdpa")
    assert narrows(learner, VOCABULARY)

    class Deaf(type(learner)):  # type: ignore[misc]  # a class made at run time
        def forward(self, logits_to_keep: object = 0, **given: object) -> object:
            return super().forward(**given)

    deaf = Deaf(learner.config)
    assert not narrows(deaf, VOCABULARY)


LENGTHS = st.lists(st.integers(1, 100), max_size=60)


def first_fit_decreasing(lengths: list[int], window: int) -> list[list[int]]:
    """The definition, one sequence after the other."""
    packed: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        for one in packed:
            if sum(lengths[place] for place in one) + lengths[index] <= window:
                one.append(index)
                break
        else:
            packed.append([index])
    return packed


@given(LENGTHS, st.integers(100, 300))
def test_packing_is_first_fit_decreasing(lengths: list[int], window: int) -> None:
    assert pack(lengths, window) == first_fit_decreasing(lengths, window)


def test_an_example_larger_than_the_window_is_an_error() -> None:
    with pytest.raises(ValueError, match="101 tokens does not fit a window of 100"):
        pack([3, 101], 100)


@given(LENGTHS, st.integers(1, 8), st.integers(0, 5))
def test_grouped_batches_hold_every_example_once(lengths: list[int], batch: int, seed: int) -> None:
    batches = length_grouped_batches(lengths, batch, seed)
    assert sorted(index for one in batches for index in one) == list(range(len(lengths)))
    assert all(0 < len(one) <= batch for one in batches)
    assert batches == length_grouped_batches(lengths, batch, seed)
    if lengths:
        assert max(lengths) == max(lengths[index] for index in batches[0])


def test_padding_is_little() -> None:
    # Lengths as dialogues have them: a broad middle and a long tail.
    draws = random.Random(7)
    lengths = [min(2048, int(draws.lognormvariate(6.9, 0.45))) for _ in range(2000)]
    packed = [[sum(lengths[index] for index in one)] for one in pack(lengths, 2048)]
    assert padding_share(packed, 2048) < 0.05
    assert padding_share(packed) == 0  # a batch of one sequence is not padded at all
    grouped = length_grouped_batches(lengths, 4, seed=1)
    shares = padding_share([[lengths[index] for index in one] for one in grouped])
    shuffled = [lengths[start : start + 4] for start in range(0, len(lengths), 4)]
    assert shares < 0.05 < padding_share(shuffled)
    assert padding_share([[3, 1], [2]]) == pytest.approx(2 / 8)
    assert padding_share([]) == 0


def test_orders_differ_by_seed() -> None:
    lengths = list(range(1, 200))
    assert length_grouped_batches(lengths, 4, 1) != length_grouped_batches(lengths, 4, 2)
