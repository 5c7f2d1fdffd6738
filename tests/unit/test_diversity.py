"""A corpus' figures against values computed by hand, or by comparing all pairs."""

from __future__ import annotations

import string
from itertools import combinations

import numpy as np
import pytest

from specs.rouge import rouge_l
from trainer.diversity import COLUMNS, LONG, PAIRS, SAMPLE, CorpusMeasures

RUN = " ".join("abcdefgh"[:LONG])


def letters(number: int) -> str:
    """Return a word of a number's own (digits would be words of their own)."""
    return "w" + "".join(string.ascii_lowercase[int(digit)] for digit in str(number))


def corpus(*dialogues: list[str]) -> dict[str, float | None]:
    gauge = CorpusMeasures()
    for dialogue in dialogues:
        gauge.add(dialogue)
    return gauge.result()


def test_nothing_has_no_figures() -> None:
    assert corpus() == {**dict.fromkeys(COLUMNS), "dialogues": 0.0}
    assert corpus([])["dialogues"] == 0.0  # a dialogue without own words is none


def test_distinct_is_of_the_whole_corpus() -> None:
    row = corpus(["a cup of tea"], ["a cup of mint", "tea"])
    assert row["distinct_1"] == 5 / 9
    assert row["distinct_2"] == 4 / 6
    assert row["distinct_3"] == 3 / 4
    assert row["dialogues"] == 2


def test_the_published_measures() -> None:
    row = corpus(["a cup of tea"], ["a cup of mint", "tea"], ["rain"])
    assert row["unique_words"] == 6
    assert row["distinct_4"] == 2 / 2
    assert row["distinct_5"] is None  # no utterance has five words
    # The longest common subsequence of the first two is "a cup of tea"; the third shares nothing.
    assert row["rouge_diversity"] == pytest.approx(1 - (2 * 4 / (4 + 5)) / 3)
    assert corpus(["alone"])["rouge_diversity"] is None


def test_many_pairs_are_sampled_close_to_all_of_them() -> None:
    texts = [" ".join(letters(number * place % 7) for place in range(6)) for number in range(90)]
    row, again = corpus(*[[text] for text in texts]), corpus(*[[text] for text in texts])
    pairs = list(combinations(texts, 2))
    assert len(pairs) > PAIRS
    mean = sum(rouge_l(one, other) for one, other in pairs) / len(pairs)
    assert row["rouge_diversity"] == again["rouge_diversity"]
    assert row["rouge_diversity"] == pytest.approx(1 - mean, abs=0.03)


def test_long_runs_count_that_stand_in_another_dialogue() -> None:
    row = corpus([f"{RUN} x"], [RUN, "short"], [f"y {RUN[:-2]} z"])
    # Two runs in the first, one in the second, and two in the third; RUN stands in two of them.
    assert row["long_repetition"] == 2 / 5
    assert len(RUN.split()) == LONG
    assert corpus([RUN, RUN])["long_repetition"] == 0.0  # in one dialogue, however often


def test_the_same_over_and_over() -> None:
    same = corpus(*[["mint tea for two, please"]] * 40)
    varied = corpus(*[[f"{word} tea for {n}"] for n, word in enumerate("abcdefghijklmnop")])
    assert same["self_bleu"] == pytest.approx(100)
    assert varied["self_bleu"] is not None
    assert varied["self_bleu"] < 60
    assert (same["compression_ratio"] or 0) > 5 * (varied["compression_ratio"] or 9)


@pytest.mark.parametrize(
    "texts", [["抹茶ラテをください", "お茶をください"], ["мятный чай", "мятный и чёрный чай"]]
)
def test_any_script_counts(texts: list[str]) -> None:
    row = corpus(*[[text] for text in texts])
    assert 0 < (row["self_bleu"] or 0) < 100
    assert 0 < (row["distinct_1"] or 0) < 1


def test_the_dispersion_is_that_of_all_pairs() -> None:
    rows = np.random.default_rng(0).normal(0.3, 1, (30, 8))
    gauge = CorpusMeasures()
    for number, row in enumerate(rows):
        gauge.add([str(number)], row)
    gauge.add(["without a vector"])
    gauge.add(["nothing"], np.zeros(8))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (units @ units.T)[np.triu_indices(30, 1)]
    assert gauge.result()["dispersion"] == pytest.approx(1 - cosines.mean())


def test_a_large_corpus_is_sampled_evenly_and_always_alike() -> None:
    def row(seed: int) -> dict[str, float | None]:
        gauge = CorpusMeasures(seed, sample=200)
        for number in range(1000):  # every word once among the first 500, then one word alone
            gauge.add([letters(number) if number < 500 else "tea"])
        return gauge.result()

    assert row(0) == row(0)
    assert row(0)["distinct_1"] != row(1)["distinct_1"]
    assert row(0)["dialogues"] == 1000
    assert row(0)["distinct_1"] == pytest.approx(0.5, abs=0.12)  # 200 draws: 3.4 deviations
    assert SAMPLE > 200


def test_a_result_does_not_end_it() -> None:
    gauge = CorpusMeasures()
    gauge.add(["mint tea"])
    first = gauge.result()
    assert gauge.result() == first
    gauge.add(["a cup of rooibos"])
    assert gauge.result() == corpus(["mint tea"], ["a cup of rooibos"])
