"""Examples put together into sequences and batches, so that little is computed for padding.

Packing puts several examples into one sequence. They are kept apart by their positions: each
example's begin at 0, and transformers lets no token look beyond such a beginning, as long as it is
given no attention mask and keeps no cache (its attention mask, where one is given, wins). Whether
a model does keep them apart is asked of the model itself (`keeps_apart`): one with recurrent layers
may not, and is trained on length-grouped batches.

Everything here is a pure function of its arguments; the order of training is drawn elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from specs.chat_template import IGNORED, Encoded

GROUP = 50
"""Batches that are sorted by length together: enough to fill them evenly, few enough to mix."""

Batch = dict[str, Any]
"""A model's keyword arguments."""


def pack(lengths: Sequence[int], window: int) -> list[list[int]]:
    """Return sequences of examples (their indices), by first-fit decreasing.

    First-fit decreasing needs at most 11/9 of the best possible number of sequences (Johnson 1973).
    O(n log n) time: a tree over the sequences knows the most room that is free under each node.

    Raises:
        ValueError: when an example is longer than the window.
    """
    longest = max(lengths, default=0)
    if longest > window:
        raise ValueError(f"an example of {longest} tokens does not fit a window of {window}")
    room = _Room(len(lengths), window)
    packed: list[list[int]] = []
    for example in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        place = room.take(lengths[example])
        if place == len(packed):
            packed.append([])
        packed[place].append(example)
    return packed


class _Room:
    """The free room of sequences, as a tree of maxima."""

    def __init__(self, count: int, window: int) -> None:
        self._leaves = 1 << max(0, count - 1).bit_length()
        self._free = [window] * (2 * self._leaves)

    def take(self, length: int) -> int:
        """Take room in the first sequence that has it; return which."""
        free, node = self._free, 1
        while node < self._leaves:
            node *= 2
            node += free[node] < length
        place = node - self._leaves
        free[node] -= length
        while node > 1:
            node //= 2
            free[node] = max(free[2 * node], free[2 * node + 1])
        return place


def length_grouped_batches(lengths: Sequence[int], batch: int, seed: int) -> list[list[int]]:
    """Return batches of examples (their indices) of about one length, in a drawn order.

    Every example is in one batch; the one with the longest example comes first, so that memory that
    does not suffice shows at once.
    """
    draws = random.Random(seed)
    order = list(range(len(lengths)))
    draws.shuffle(order)
    size = GROUP * batch
    batches: list[list[int]] = []
    for start in range(0, len(order), size):
        group = sorted(order[start : start + size], key=lambda index: -lengths[index])
        batches += [group[at : at + batch] for at in range(0, len(group), batch)]
    draws.shuffle(batches)
    longest = max(batches, key=lambda one: max(lengths[index] for index in one), default=None)
    if longest is not None:
        batches.remove(longest)
        batches.insert(0, longest)
    return batches


def padding_share(batches: Sequence[Sequence[int]], window: int | None = None) -> float:
    """Return the share of padding among the tokens of all batches.

    Args:
        batches: the lengths of each batch's sequences.
        window: what sequences are padded to; the longest of their batch for None.
    """
    used = sum(map(sum, batches))
    room = sum(len(batch) * (window or max(batch)) for batch in batches if batch)
    return 1 - used / room if room else 0.0


def collate_packed(sequences: Sequence[Sequence[Encoded]], pad: int) -> Batch:
    """Return a batch of packed sequences, padded on the right to the longest.

    `input_ids`, `labels` and `position_ids` are int64 tensors of shape (sequences, tokens); no
    label stands on an example's first token, which the example before it would have to predict.
    There is no attention mask, and no cache is kept: see the module. Padding is an example of its
    own, without labels. (FlashAttention keeps examples apart in batches of one sequence alone.)

    Args:
        sequences: each with its examples.
        pad: the id that padding is made of.
    """
    import torch

    length = max(sum(len(one.ids) for one in sequence) for sequence in sequences)
    ids, labels, positions = [], [], []
    for sequence in sequences:
        padding = length - sum(len(one.ids) for one in sequence)
        ids.append([id_ for one in sequence for id_ in one.ids] + [pad] * padding)
        labels.append([label for one in sequence for label in _first(one)] + [IGNORED] * padding)
        counts = [len(one.ids) for one in sequence] + [padding]
        positions.append([place for count in counts for place in range(count)])
    return {
        "input_ids": torch.tensor(ids),
        "labels": torch.tensor(labels),
        "position_ids": torch.tensor(positions),
        "use_cache": False,
    }


def collate_padded(examples: Sequence[Encoded], pad: int) -> Batch:
    """Return a batch of one example a sequence, padded on the right to the longest.

    `input_ids`, `labels` and `attention_mask` are int64 tensors of shape (examples, tokens).
    """
    import torch

    length = max(len(one.ids) for one in examples)
    short = [length - len(one.ids) for one in examples]
    labels = [_first(one) + [IGNORED] * n for one, n in zip(examples, short, strict=True)]
    return {
        "input_ids": torch.tensor(
            [[*o.ids, *[pad] * n] for o, n in zip(examples, short, strict=True)]
        ),
        "labels": torch.tensor(labels),
        "attention_mask": torch.tensor([[1] * (length - n) + [0] * n for n in short]),
        "use_cache": False,
    }


def _first(example: Encoded) -> list[int]:
    return [IGNORED, *example.labels[1:]]


def keeps_apart(model: Any, vocabulary: int) -> bool:
    """Whether a model computes for packed examples what it computes for each alone.

    A model that lets them look at each other differs by far more than rounding does. Costs two
    short forward passes; the model's mode (training or not) is left as it was.

    Args:
        model: a causal language model of transformers.
        vocabulary: how many token ids there are.
    """
    import torch

    draws = random.Random(0)
    one, two = ([draws.randrange(vocabulary) for _ in range(count)] for count in (9, 7))
    with _asked(model) as ask:
        packed, alone = (
            ask(_unlabelled([[Encoded(ids, [False] * len(ids)) for ids in examples]])).logits[0]
            for examples in ((one, two), (two,))
        )
    apart = (packed[len(one) :].float() - alone.float()).abs().max()
    # Rounding makes 1e-6 of the largest logit in float32 and 2% in bfloat16 (SmolLM2-135M, where
    # looking at each other makes 48%).
    tolerance = 1e-3 if next(model.parameters()).dtype is torch.float32 else 0.1
    return bool(apart <= tolerance * alone.float().abs().max())


def narrowed(batch: Batch) -> Batch:
    """Return a batch for which a model computes logits only where loss falls.

    Half of a dialogue's tokens and more are not the agent's, and the product with the vocabulary is
    a small model's largest. `labels` and `shift_labels`, of shape (rows, kept), are what follows
    each of the `logits_to_keep`: the positions, alike for all rows, behind which any row learns a
    token (the first one where none does: models fail on none at all).
    """
    import torch

    labels = batch["labels"]
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    kept = (following != IGNORED).any(dim=0).nonzero()[:, 0]
    if not len(kept):
        kept = torch.zeros(1, dtype=torch.int64)
    targets = following[:, kept]
    return {**batch, "labels": targets, "shift_labels": targets, "logits_to_keep": kept}


def narrows(model: Any, vocabulary: int) -> bool:
    """Whether a model's loss of a narrowed batch is its loss of the whole one.

    Not every architecture knows these arguments, and one that overlooks them would learn something
    else. Costs two short forward passes; the model's mode is left as it was.

    Args:
        model: a causal language model of transformers.
        vocabulary: how many token ids there are.
    """
    draws = random.Random(1)
    example = Encoded([draws.randrange(vocabulary) for _ in range(12)], [False] * 6 + [True] * 6)
    batch = collate_packed([[example]], 0)
    try:
        with _asked(model) as ask:
            whole, narrow = (float(ask(one).loss) for one in (batch, narrowed(batch)))
    except (TypeError, ValueError, IndexError, RuntimeError):
        return False
    return abs(whole - narrow) <= 0.02 * abs(whole)


@contextmanager
def _asked(model: Any) -> Iterator[Callable[[Batch], Any]]:
    """Let a model be asked for what it is not to learn from; its mode is left as it was."""
    import torch

    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield lambda batch: model(
                **{k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
            )
    finally:
        model.train(training)


def _unlabelled(sequences: Sequence[Sequence[Encoded]]) -> Batch:
    batch = collate_packed(sequences, 0)
    del batch["labels"]
    return batch
