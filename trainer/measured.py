"""The measured dialogues of a round: figures in memory, everything else read again when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np

from specs.parts import read_batches
from specs.run_file import Filter
from trainer.curated import Task
from trainer.duplicates import Sketch
from trainer.filters import JUDGE, Decision, Facts, Mask, Table
from trainer.measures import OWN
from trainer.measuring import Gauges, measured_name, measured_schema
from trainer.split import Split
from trainer.vectors import Embed, VectorFile, Vectors, embedded

T = TypeVar("T")

_BLOCK = 64
_DISPERSION = 2000
"""Dialogues whose vectors the dispersion is taken from, when no filter needs all of them."""


class Corpus(Protocol):
    """Measures of a whole corpus, in one pass over it."""

    def add(self, texts: Sequence[str], vector: Vectors | None = None) -> None:
        """Take the utterances of one dialogue, and its vector where there is one."""

    def result(self) -> Mapping[str, float | None]:
        """Return the figures by name."""


class Near(Protocol):
    """Looks for near-duplicates in one pass."""

    def add(self, walk_id: str, sketch: Sketch, vector: Vectors | None = None) -> Any:
        """Take one dialogue; return the earlier one that it repeats, or None."""


@dataclass(frozen=True, slots=True)
class Instruments:
    """What a curation works with.

    Attributes:
        gauges: of single dialogues.
        corpus: a fresh gauge of a corpus.
        near: a fresh search for near-duplicates, with the bounds of a filter.
        embed: None when nothing needs vectors.
        rate: transcripts to ratings (None for one that was not rated); None without a judge.
        card: what the curated files say of the agent (`duologue.agent`).
    """

    gauges: Gauges
    corpus: Callable[[], Corpus]
    near: Callable[[Filter], Near]
    card: Mapping[str, Any]
    embed: Embed | None = None
    rate: Callable[[Sequence[str]], Sequence[float | None]] | None = None


class Measured:
    """The measured dialogues: their figures in memory, the rest read again when it is needed."""

    def __init__(
        self, task: Task, tools: Instruments, parts: Sequence[str], vectors: VectorFile
    ) -> None:
        self.task, self.tools, self.parts, self.vectors = task, tools, parts, vectors
        judged = (JUDGE,) if tools.rate is not None else ()
        self.table = Table((*tools.gauges.names, *judged))
        self.usable: list[bool] = []
        self.corpus: Mapping[str, float | None] = {}
        self._found: dict[tuple[str, bytes], dict[int, str]] = {}

    def rows(self, part: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of one part, in order."""
        for batch in read_batches(
            self.task.quality, measured_name(part), measured_schema(), columns
        ):
            yield from batch.to_pylist()

    def all_rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of all parts, in order."""
        for part in self.parts:
            yield from self.rows(part, columns)

    def read(self) -> None:
        """Take the figures of all dialogues, their vectors and ratings, and the corpus'."""
        corpus = self.tools.corpus()
        columns = ["walk_id", "document", "stop_reason", "findings", "measures", "turns"]
        rows = self.all_rows([*columns, "unusable"])
        for block in _blocks(rows):
            self._embed(block)
            ratings = self._rate(block)
            for row, rating in zip(block, ratings, strict=True):
                number = len(self.table)
                corpus.add(own_words(row), self.vectors.get(number))
                self._take(row, rating)
        self.corpus = corpus.result()

    def _take(self, row: Mapping[str, Any], rating: float | None) -> None:
        measures = dict(zip(self.tools.gauges.names, row["measures"], strict=True))
        measures[JUDGE] = rating
        facts = Facts(row["stop_reason"], [f["kind"] for f in row["findings"]], measures)
        intents = [turn["intent"] for turn in row["turns"] if turn["intent"]]
        self.table.add(row["walk_id"], row["document"], intents, facts)
        self.usable.append(not row["unusable"])

    def _embed(self, block: Sequence[Mapping[str, Any]]) -> None:
        if self.tools.embed is None:
            return
        first = len(self.table)
        everyone = any(rule.kind == "near_duplicates" for rule in self.task.section.filters)
        wanted = [place for place in range(len(block)) if everyone or first + place < _DISPERSION]
        if wanted:
            texts = ["\n".join(t["text"] for t in block[place]["turns"]) for place in wanted]
            self.vectors.add([first + place for place in wanted], embedded(self.tools.embed, texts))

    def _rate(self, block: Sequence[Mapping[str, Any]]) -> Sequence[float | None]:
        if self.tools.rate is None:
            return [None] * len(block)
        return self.tools.rate([_transcript(row) for row in block])

    def duplicates(self, rule: Filter, eligible: Mask) -> dict[int, str]:
        """Return which of some dialogues repeat an earlier one of them, with the reason."""
        key = (rule.model_dump_json(), np.packbits(eligible).tobytes())
        if key not in self._found:
            self._found[key] = dict(self._look(rule, eligible))
        return self._found[key]

    def _look(self, rule: Filter, eligible: Mask) -> Iterator[tuple[int, str]]:
        near = self.tools.near(rule)
        for number, row in enumerate(self.all_rows(["walk_id", "shingles", "minhash"])):
            if not eligible[number]:
                continue
            hashes = (np.frombuffer(row[name], np.uint32) for name in ("shingles", "minhash"))
            like = near.add(row["walk_id"], Sketch(*hashes), self.vectors.get(number))
            if like is not None:
                yield number, str(like)


def _blocks(rows: Iterable[T], size: int = _BLOCK) -> Iterator[list[T]]:
    rows = iter(rows)
    while block := list(islice(rows, size)):
        yield block


def _transcript(row: Mapping[str, Any]) -> str:
    return "\n".join(f"{turn['role']}: {turn['text']}" for turn in row["turns"])


def own_words(row: Mapping[str, Any]) -> list[str]:
    """Return the utterances of a measured dialogue that are the model's own."""
    return [turn["text"] for turn in row["turns"] if turn["source"] in OWN]


def taken(decisions: Sequence[Decision], played: int) -> Iterator[tuple[str, int, int]]:
    """Yield each filter's name, how many dialogues it took, and how many it left."""
    left = np.ones(played, np.bool_)
    for decision in decisions:
        after = left & decision.kept
        yield decision.name, int(left.sum() - after.sum()), int(after.sum())
        left = after


@dataclass(frozen=True, slots=True)
class Decided:
    """What each filter said, who is kept, and which unit stands on which side."""

    decisions: Sequence[Decision]
    kept: Mask
    sides: Mapping[str, Split]

    def taken(self) -> Iterator[tuple[str, int, int]]:
        """Yield each filter's name, how many dialogues it took, and how many it left."""
        yield from taken(self.decisions, len(self.kept))
