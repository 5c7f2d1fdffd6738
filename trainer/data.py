"""What is learned: dialogues as token ids, and the order in which workers see them.

Invariants: the order is a pure function of the lengths, the settings, the seed and the number of
workers, so that whoever goes on after a crash sees what was to come; every worker makes as many
forward passes as every other (the last ones of an epoch may be blank: nothing in them is learned).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from specs.agent_format import ChatMessage
from specs.chat_template import ChatEncoder, Encoded, truncate
from specs.run_file import TrainSection
from specs.seeds import uniform
from trainer.packing import (
    Batch,
    collate_packed,
    collate_padded,
    length_grouped_batches,
    pack,
    padding_share,
)


@dataclass(slots=True)
class DataFigures:
    """What encoding found.

    Attributes:
        dialogues: that were read.
        cut: of which turns were dropped to fit the window.
        dropped_turns: of those.
        unusable: of which nothing could be learned (no turn fits, or the agent says nothing).
        tokens: that are left, of all examples.
        trained_tokens: on which loss falls.
    """

    dialogues: int = 0
    cut: int = 0
    dropped_turns: int = 0
    unusable: int = 0
    tokens: int = 0
    trained_tokens: int = 0

    def as_json(self) -> dict[str, int]:
        """Return the figures by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Examples:
    """Encoded dialogues, flat: cheap to send to other processes, and read there without a copy.

    Attributes:
        ids: int32, all examples' token ids.
        mask: bool, as long: on which loss falls.
        starts: int64, where each example begins; one more than examples.
    """

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]
    starts: npt.NDArray[np.int64]
    figures: DataFigures = field(default_factory=DataFigures)

    def __len__(self) -> int:
        """How many examples."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [int(length) for length in np.diff(self.starts)]

    def __getitem__(self, index: int) -> Encoded:
        """Return an example."""
        part = slice(self.starts[index], self.starts[index + 1])
        return Encoded(self.ids[part].tolist(), self.mask[part].tolist())


def drawn(walk_ids: Iterable[str], most: int, seed: int) -> frozenset[str]:
    """Return at most so many of the ids, drawn by the seed, whatever order they come in.

    Those that a smaller number takes are among those of a greater one.
    """
    places = ((uniform(seed, "train.dialogues", one), one) for one in walk_ids)
    return frozenset(one for _, one in heapq.nsmallest(most, places))


def encode(chats: Iterable[Sequence[ChatMessage]], encoder: ChatEncoder, window: int) -> Examples:
    """Encode dialogues, each cut to the window; see `DataFigures` for what is counted.

    Raises:
        InputError: when the chat template fails on a dialogue.
    """
    ids, mask, starts = array("i"), bytearray(), array("q", [0])
    figures = DataFigures()
    for chat in chats:
        figures.dialogues += 1
        kept, dropped = truncate(chat, encoder, window)
        example = encoder.encode(kept)
        trained = sum(example.mask[1:])  # nothing predicts the first token
        if not trained:
            figures.unusable += 1
            continue
        figures.cut += dropped > 0
        figures.dropped_turns += dropped
        figures.tokens += len(example.ids)
        figures.trained_tokens += trained
        ids.extend(example.ids)
        mask.extend(example.mask)
        starts.append(len(ids))
    return Examples(
        np.frombuffer(ids, np.int32) if ids else np.zeros(0, np.int32),
        np.frombuffer(bytes(mask), np.bool_),
        np.frombuffer(starts, np.int64),
        figures,
    )


@dataclass(frozen=True, slots=True)
class Layout:
    """How examples are put into sequences, and those into forward passes.

    Attributes:
        sequences: the examples of each sequence; one each where nothing is packed.
        lengths: the sequences' tokens.
        batch: sequences of one worker's forward pass.
    """

    sequences: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...]
    packed: bool
    batch: int
    workers: int
    seed: int

    @classmethod
    def of(
        cls, lengths: Sequence[int], section: TrainSection, workers: int, packed: bool
    ) -> Layout:
        """Lay examples of these lengths out."""
        found = pack(lengths, section.window) if packed else [[i] for i in range(len(lengths))]
        return cls(
            tuple(map(tuple, found)),
            tuple(sum(lengths[index] for index in one) for one in found),
            packed,
            section.batch,
            workers,
            section.seed,
        )

    @property
    def rows(self) -> int:
        """Forward passes of an epoch, of every worker."""
        return -(-len(self.sequences) // (self.batch * self.workers))

    def epoch(self, number: int) -> list[list[int]]:
        """Return an epoch's rows: the sequences (indices) that all workers take together."""
        size = self.batch * self.workers
        seed = random.Random(f"{self.seed}:{number}").getrandbits(32)
        if not self.packed:
            return length_grouped_batches(self.lengths, size, seed)
        order = list(range(len(self.sequences)))
        random.Random(seed).shuffle(order)
        return [order[start : start + size] for start in range(0, len(order), size)]

    def passes(self, count: int) -> list[list[int]]:
        """Return the first `count` rows of as many epochs as that takes."""
        epochs = (self.epoch(number) for number in itertools.count())
        return list(itertools.islice(itertools.chain.from_iterable(epochs), count))

    def of_worker(self, row: Sequence[int], rank: int) -> list[int]:
        """Return the sequences of a row that one worker takes; none where there are too few."""
        return list(row[rank :: self.workers])

    def padding(self) -> float:
        """Return the share of padding in the first epoch's forward passes."""
        batches = [
            [self.lengths[index] for index in self.of_worker(row, rank)]
            for row in self.epoch(0)
            for rank in range(self.workers)
        ]
        return padding_share([batch for batch in batches if batch])


@dataclass(frozen=True, slots=True)
class Course:
    """All forward passes of a training, in order, and how they make up optimizer steps.

    Attributes:
        rows: for each forward pass the sequences of all workers.
        accumulate: rows of a step; the last step may have fewer.
    """

    layout: Layout
    rows: list[list[int]]
    accumulate: int

    @classmethod
    def of(cls, layout: Layout, section: TrainSection) -> Course:
        """Plan the passes that the section's epochs, or its most steps, ask for."""
        count = max(1, math.ceil(section.epochs * layout.rows - 1e-9))
        if section.max_steps is not None:
            count = min(count, section.max_steps * section.accumulate)
        return cls(layout, layout.passes(count), section.accumulate)

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return -(-len(self.rows) // self.accumulate)

    def epochs_at(self, step: int) -> float:
        """Return how many epochs have passed after a step."""
        return min(step * self.accumulate, len(self.rows)) / self.layout.rows

    def tokens(self) -> list[int]:
        """Return for each step the tokens, without padding, of all workers."""
        lengths = self.layout.lengths
        rows = [sum(lengths[index] for index in row) for row in self.rows]
        size = self.accumulate
        return [sum(rows[start : start + size]) for start in range(0, len(rows), size)]


class Passes:
    """One worker's forward passes, as the model takes them."""

    def __init__(self, examples: Examples, course: Course, rank: int, pad: int) -> None:
        """Take a worker's share; `pad` is the id that padding is made of."""
        self._examples, self._course, self._rank, self._pad = examples, course, rank, pad

    def __len__(self) -> int:
        """How many."""
        return len(self._course.rows)

    def __getitem__(self, index: int) -> Batch:
        """Return a forward pass."""
        layout, row = self._course.layout, self._course.rows[index]
        mine = layout.of_worker(row, self._rank)
        if not mine:  # the epoch's end: the other workers must not wait for this one
            return collated([[_blank(self._examples)]], layout.packed, self._pad)
        sequences = [[self._examples[one] for one in layout.sequences[at]] for at in mine]
        return collated(sequences, layout.packed, self._pad)


def collated(sequences: Sequence[Sequence[Encoded]], packed: bool, pad: int) -> Batch:
    """Return sequences of examples as a model's keyword arguments."""
    if packed:
        return collate_packed(sequences, pad)
    return collate_padded([one for sequence in sequences for one in sequence], pad)


def _blank(examples: Examples) -> Encoded:
    ids = examples[0].ids[:8]
    return Encoded(ids, [False] * len(ids))


def validation_passes(
    examples: Examples, section: TrainSection, workers: int, packed: bool, rank: int, pad: int
) -> Iterator[Batch]:
    """Yield one worker's share of the validation split; all shares have the same length."""
    layout = Layout.of(examples.lengths, section, workers, packed)
    course = Course(layout, layout.epoch(0), 1)
    passes = Passes(examples, course, rank, pad)
    return (passes[number] for number in range(len(passes)))
