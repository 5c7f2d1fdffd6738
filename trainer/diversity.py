"""How varied a corpus is, in one pass over it and in bounded memory.

Invariants: the compression ratio and the dispersion are of the whole corpus; what needs the words
of all dialogues at once is of a seeded sample of SAMPLE of them (of all, where there are no more),
which also makes corpora of different sizes comparable: the share of different n-grams falls as a
text grows. Nothing depends on a script: words are those of `specs.words`.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from specs.rouge import rouge_l_words
from specs.words import words
from trainer.measures import distinct, ngrams

Vector = Sequence[float] | npt.NDArray[np.floating]

SAMPLE = 1000
"""Dialogues of the sample that distinct-n and the long repetition are taken from."""

BLEU_SAMPLE = 30
"""Of these, those that self-BLEU compares, each with all the others: its time grows with the
square, and its value with their number, so that it compares only with itself.
"""

PAIRS = 2000
"""Pairs of dialogues that the mean ROUGE-L is taken from; all of them, where there are no more."""

LONG = 8
"""Words of a long run."""

COLUMNS = (
    "dialogues",
    "distinct_1",
    "distinct_2",
    "distinct_3",
    "distinct_4",
    "distinct_5",
    "unique_words",
    "rouge_diversity",
    "compression_ratio",
    "long_repetition",
    "self_bleu",
    "dispersion",
)
"""What `CorpusMeasures.result` returns, in its order."""


class CorpusMeasures:
    """Takes dialogues one by one, and says how varied they are together."""

    def __init__(self, seed: int = 0, sample: int = SAMPLE) -> None:
        self._draws = random.Random(seed)
        self._size = sample
        self._sample: list[tuple[str, ...]] = []
        self._count = 0
        self._compressor = zlib.compressobj()
        self._bytes = self._compressed = 0
        self._sum: npt.NDArray[np.float64] | None = None
        self._vectors = 0

    def add(self, texts: Sequence[str], vector: Vector | None = None) -> None:
        """Take one dialogue.

        Args:
            texts: the utterances that are judged (the model's own); a dialogue without any is not
                counted.
            vector: of the dialogue; of any length but zero, the same size for all.
        """
        if not texts:
            return
        data = ("\n".join(texts) + "\n").encode()
        self._bytes += len(data)
        self._compressed += len(self._compressor.compress(data))
        self._take(tuple(texts))
        if vector is not None:
            self._point(np.asarray(vector, dtype=np.float64))

    def _take(self, texts: tuple[str, ...]) -> None:
        # Every dialogue so far is in the sample with the same chance (Vitter, 1985, algorithm R).
        self._count += 1
        if len(self._sample) < self._size:
            self._sample.append(texts)
            return
        place = self._draws.randrange(self._count)
        if place < self._size:
            self._sample[place] = texts

    def _point(self, row: npt.NDArray[np.float64]) -> None:
        length = float(np.linalg.norm(row))
        if length > 0:
            unit = row / length
            self._sum = unit if self._sum is None else self._sum + unit
            self._vectors += 1

    def result(self) -> dict[str, float | None]:
        """Return the figures so far; None where there is too little to tell.

        `dialogues`: how many. `distinct_1` to `distinct_5`: different n-grams of the sample as a
        share of all (Li et al., 2016). `unique_words`: different words of the sample, and
        `rouge_diversity`: 1 less the mean ROUGE-L of two of its dialogues, over PAIRS pairs: with
        distinct-n what Ulmer et al. (2024) report. `compression_ratio`: bytes over bytes under
        zlib, whose memory reaches 32 KB back (Shaib et al., 2024). `long_repetition`: share of the
        sample's runs of LONG words that stand in another dialogue too. `self_bleu`: mean BLEU
        of a dialogue against the others of BLEU_SAMPLE, in [0, 100] (Zhu et al., 2018).
        `dispersion`: 1 less the mean cosine of two dialogues' vectors.
        """
        sample = [[words(text) for text in texts] for texts in self._sample]
        flat = [utterance for dialogue in sample for utterance in dialogue]
        figures = (
            float(self._count),
            distinct(flat, 1),
            distinct(flat, 2),
            distinct(flat, 3),
            distinct(flat, 4),
            distinct(flat, 5),
            float(len({word for utterance in flat for word in utterance})) if flat else None,
            _rouge_diversity(sample),
            self._compression(),
            _long_repetition(sample),
            self._self_bleu(),
            self._dispersion(),
        )
        return dict(zip(COLUMNS, figures, strict=True))

    def _compression(self) -> float | None:
        if not self._bytes:
            return None
        rest = self._compressor.copy().flush()  # more may come
        return self._bytes / (self._compressed + len(rest))

    def _self_bleu(self) -> float | None:
        from sacrebleu.metrics.bleu import BLEU

        chosen = random.Random(0).sample(self._sample, min(BLEU_SAMPLE, len(self._sample)))
        # Cut into words here, and joined by blanks: sacrebleu's own cutting knows few scripts.
        texts = [" ".join(word for text in texts for word in words(text)) for texts in chosen]
        if len(texts) < 2:
            return None
        bleu = BLEU(tokenize="none", effective_order=True)
        scores = [
            bleu.sentence_score(text, texts[:place] + texts[place + 1 :]).score
            for place, text in enumerate(texts)
        ]
        return sum(scores) / len(scores)

    def _dispersion(self) -> float | None:
        count = self._vectors
        if self._sum is None or count < 2:
            return None
        # |sum|^2 holds every pair twice, and each vector with itself once.
        pairs = float(self._sum @ self._sum) - count
        return max(0.0, 1 - pairs / (count * (count - 1)))


def _rouge_diversity(sample: Sequence[Sequence[Sequence[str]]]) -> float | None:
    texts = [[word for utterance in dialogue for word in utterance] for dialogue in sample]
    if len(texts) < 2:
        return None
    every = len(texts) * (len(texts) - 1) // 2
    pairs: Iterable[Sequence[int]] = combinations(range(len(texts)), 2)
    if every > PAIRS:
        draws = random.Random(0)
        pairs = [draws.sample(range(len(texts)), 2) for _ in range(PAIRS)]
    scores = [rouge_l_words(texts[one], texts[other]) for one, other in pairs]
    return 1 - sum(scores) / len(scores)


def _long_repetition(sample: Sequence[Sequence[Sequence[str]]]) -> float | None:
    holders: Counter[tuple[str, ...]] = Counter()
    runs: list[Counter[tuple[str, ...]]] = []
    for dialogue in sample:
        found = Counter(ngrams(dialogue, LONG))
        holders.update(found.keys())
        runs.append(found)
    every = sum(found.total() for found in runs)
    shared = sum(n for found in runs for run, n in found.items() if holders[run] > 1)
    return shared / every if every else None
