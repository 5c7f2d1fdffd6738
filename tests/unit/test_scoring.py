"""What counts as right, and the figures made of it, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from specs.agent_format import ChatMessage
from specs.domain import SlotType
from trainer.bootstrap import Interval, Resamples
from trainer.evaluation import Prediction
from trainer.figures import (
    Marked,
    Sums,
    add_up,
    bucket_of,
    compare,
    difference,
    headline,
    measure,
    result,
)
from trainer.scoring import (
    UNKNOWN,
    UNPARSED,
    Card,
    agreement,
    called,
    groundedness,
    heard,
    phrase_words,
)

CARD = Card(
    {
        "ask": {"query": "text", "cups": "integer", "tags": "list"},
        "choose": {"option": "integer"},
        "leave": {},
    },
    {"search": {"query": "text", "page": "integer"}, "pay": {"ids": "list", "now": "boolean"}},
)


@pytest.mark.parametrize(
    ("kind", "gold", "predicted", "value"),
    [
        ("text", "tomato soup", "hot Tomato soup", 0.8),  # 2 of 2 and 2 of 3
        ("text", "a a b", "a b b", 2 / 3),  # repetitions count
        ("text", "番茄汤", "番茄", 2 / 3),  # pairs: 番茄, 茄汤
        ("text", "!", "!", 1.0),
        ("text", "soup", ["soup"], 0.0),
        ("integer", 2, 2.0, 1.0),
        ("integer", 2, "2", 1.0),
        ("integer", 2, 3, 0.0),
        ("integer", 1, True, 0.0),
        ("boolean", True, "true", 1.0),
        ("boolean", True, 1, 0.0),
        ("number", 0.5, 0.25, 0.0),
        ("id", "t1", "T1", 0.0),
        ("list", ["a", "b"], ["B", "a", "a"], 1.0),
        ("list", ["a", "b"], ["b", "c"], 0.5),
        ("list", [], [], 1.0),
        ("list", ["a"], "a", 0.0),
    ],
)
def test_values_agree_by_their_type(
    kind: SlotType, gold: object, predicted: object, value: float
) -> None:
    assert agreement(kind, gold, predicted) == pytest.approx(value)


def test_what_does_not_parse_or_is_unknown_is_wrong() -> None:
    gold = '{"intent":"choose","slots":{"option":2}}'
    assert heard(CARD, gold, "I think they choose").predicted == UNPARSED
    assert heard(CARD, gold, '{"intent":"choose","slots":[2]}').predicted == UNPARSED
    unknown = heard(CARD, gold, '{"intent":"pick","slots":{"option":2}}')
    assert unknown.predicted == UNKNOWN
    assert unknown.slots["integer"].credit == 1  # a slot counts by its name


def test_slots_are_credited_by_type() -> None:
    gold = '{"intent":"ask","slots":{"query":"mint tea","cups":2,"tags":null}}'
    said = '{"intent":"ask","slots":{"query":"mint","tags":["hot"],"cups":null}}'
    slots = heard(CARD, gold, said).slots
    assert (slots["text"].gold, slots["text"].predicted) == (1, 1)
    assert slots["text"].credit == pytest.approx(2 / 3)
    assert (slots["integer"].gold, slots["integer"].predicted) == (1, 0)
    assert (slots["list"].gold, slots["list"].predicted) == (0, 1)


@pytest.mark.parametrize(
    ("predicted", "tool", "exact"),
    [
        ('{"call":"search","arguments":{"query":"MINT  tea","page":0}}', True, True),
        ('{"call":"search","arguments":{"page":0.0,"query":"mint tea","limit":null}}', True, True),
        ('{"call":"search","arguments":{"query":"mint tea"}}', True, False),
        ('{"call":"search","arguments":{"query":"mint","page":0}}', True, False),
        ('{"call":"search","arguments":{"query":"mint tea","page":0,"limit":3}}', True, False),
        ('{"call":"pay","arguments":{"query":"mint tea","page":0}}', False, False),
        ("let me look", False, False),
    ],
)
def test_a_call_is_right_with_all_its_arguments(predicted: str, tool: bool, exact: bool) -> None:
    gold = '{"call":"search","arguments":{"query":"mint tea","page":0}}'
    verdict = called(CARD, gold, predicted)
    assert (verdict.tool, verdict.exact) == (tool, exact)


def test_groundedness_leaves_the_domains_way_of_talking_out() -> None:
    def dialogue(dish: str, invented: str) -> list[ChatMessage]:
        return [
            ChatMessage("user", "Something hot?"),
            ChatMessage("assistant", '{"intent":"ask","slots":{}}'),
            ChatMessage("tool", f'{{"results":[{{"title":"{dish}"}}]}}'),
            ChatMessage("assistant", f"Splendid choice: {dish} {invented} 7."),
        ]

    phrases = phrase_words([dialogue("mint tea", "cardamom"), dialogue("barley", "honey")])
    assert phrases == {"splendid", "choice"}  # no dish, no invention of one dialogue, no number
    material = ["Have you got mint tea for five?", '{"facts":["Steep the leaves",3]}']
    assert groundedness("A splendid choice, mint tea!", material, phrases) == 1
    assert groundedness("Mint tea with honey", material, phrases) == pytest.approx(2 / 3)
    assert groundedness("Steep three leaves, 5 cups", material, phrases) == pytest.approx(3 / 4)
    assert groundedness("Splendid!", material, phrases) is None


def test_the_card_is_completed_from_what_dialogues_hold() -> None:
    messages = [
        ChatMessage("user", "Two, please."),
        ChatMessage("assistant", '{"intent":"buy","slots":{"cups":2,"sort":"mint"}}\nFine.'),
    ]
    card = CARD.seen([messages])
    assert card.intents["buy"] == {"cups": "integer", "sort": "text"}
    assert card.intents["choose"] == CARD.intents["choose"]
    text = '{"intents":{"a":{"slots":{"x":"id"}}},"tools":{"t":{"input":{"y":"list"}}}}'
    assert Card.read(text) == Card({"a": {"x": "id"}}, {"t": {"y": "list"}})


# -- figures

INTENTS = ["ask", "choose", "leave"]
GOLD = ["ask", "ask", "choose", "ask", "choose", "leave", "ask", "choose"]
SAID = ["ask", "choose", "choose", "ask", "", "ask", "nonsense", "choose"]
WALKS = ["a", "a", "a", "b", "b", "b", "c", "c"]


def understood(gold: str, said: str, walk_id: str, turn: int) -> Marked:
    text = f'{{"intent":"{said}","slots":{{}}}}' if said else "hm"
    wanted = f'{{"intent":"{gold}","slots":{{}}}}'
    made = Prediction(walk_id, 2 * turn, turn, "understanding", wanted, text)
    return Marked(made, gold == said)


def marks(said: list[str]) -> list[Marked]:
    rows = zip(GOLD, said, WALKS, [1, 2, 3, 1, 2, 3, 1, 2], strict=True)
    return [understood(*row) for row in rows]


def test_figures_are_those_of_scikit_learn() -> None:
    sums = add_up(CARD, marks(SAID), ["a", "b", "c"])
    found = result(sums, Resamples.draw(3, 200, seed=1))
    figures = found["figures"]
    seen = [said if said in INTENTS else "wrong" for said in SAID]
    for average in ("macro", "weighted"):
        expected = f1_score(GOLD, seen, labels=INTENTS, average=average, zero_division=0)
        assert figures[f"intent_{average}_f1"]["value"] == pytest.approx(expected)
    assert figures["intent_accuracy"]["value"] == 4 / 8
    precision, recall, f1, _ = precision_recall_fscore_support(
        GOLD, seen, labels=INTENTS, zero_division=0
    )
    for place, intent in enumerate(INTENTS):
        of = found["intents"][intent]
        expected = (precision[place], recall[place], f1[place])
        assert (of["precision"], of["recall"], of["f1"]) == pytest.approx(expected)
    confusion = found["confusion"]
    assert confusion["columns"] == [*INTENTS, UNKNOWN, UNPARSED]
    known = confusion_matrix(GOLD, seen, labels=[*INTENTS, "wrong"])[:3, :3]
    assert np.array(confusion["counts"])[:, :3].tolist() == known.tolist()
    assert [row[3:] for row in confusion["counts"]] == [[1, 0], [0, 1], [0, 0]]
    assert figures["answer_rouge_l"] is None
    assert found["by_turn"]["1"]["intent_accuracy"]["value"] == pytest.approx(2 / 3)
    assert found["by_turn"]["2-3"]["turns"] == 5


RARE_GOLD = ["ask", "choose"] * 6 + ["leave"] * 2
RARE_SAID = ["ask", "choose"] * 5 + ["ask", "ask", "leave", "choose"]  # the rare one's F1 is 2/3
RARE_WALKS = [f"d{place}" for place in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 4, 5)]


def macro_draws(said: list[str], resamples: Resamples) -> np.ndarray:
    """Return scikit-learn's macro-F1 of each resample, over the intents that it holds."""
    draws = []
    for counts in resamples.counts.astype(int):
        times = [counts[int(walk_id[1:])] for walk_id in RARE_WALKS]
        gold, seen = np.repeat(RARE_GOLD, times), np.repeat(said, times)
        draws.append(f1_score(gold, seen, labels=np.unique(gold), average="macro"))
    return np.array(draws)


def assert_recentred(found: Interval | None, draws: np.ndarray, value: float) -> None:
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.value == pytest.approx(value)
    assert found.low < found.value < found.high
    assert abs(draws.mean() - value) > 0.005  # or recentring would go unseen
    low, high = np.percentile(draws - draws.mean() + value, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, min(high, 1)))


def test_the_macro_averages_interval_is_of_the_intents_held_around_the_value() -> None:
    names = [f"d{place}" for place in range(6)]
    resamples = Resamples.draw(6, 200, seed=1)
    figure = headline(INTENTS)["intent_macro_f1"]
    values, draws, sums = [], [], []
    for said in (RARE_SAID, ["ask"] * 12 + ["leave", "ask"]):
        rows = zip(RARE_GOLD, said, RARE_WALKS, strict=True)
        marked = [understood(gold, one, name, 1) for gold, one, name in rows]
        sums.append(add_up(CARD, marked, names))
        values.append(f1_score(RARE_GOLD, said, labels=INTENTS, average="macro"))
        draws.append(macro_draws(said, resamples))
        assert_recentred(measure(figure, sums[-1], resamples), draws[-1], values[-1])
    for one, other in ((0, 1), (1, 0)):
        apart = difference(figure, sums[one], sums[other], resamples)
        assert_recentred(apart, draws[one] - draws[other], values[one] - values[other])


def test_what_is_recentred_stays_in_its_range() -> None:
    def root(totals: np.ndarray) -> np.ndarray:  # lower in resamples than over all dialogues
        return np.asarray(np.sqrt(totals[:, 0] / 10))

    sums = np.array([[1.0]] * 9 + [[0.0]])
    resamples = Resamples.draw(10, 500, seed=1)
    drawn = root(resamples.counts @ sums)
    assert np.percentile(drawn, 97.5) - drawn.mean() + np.sqrt(0.9) > 1
    found = resamples.interval(root, sums, recentred=True)
    assert found is not None
    assert found.high == 1
    for one, other, end in ((sums, sums * 0, "high"), (sums * 0, sums, "low")):
        apart = resamples.difference(root, one, other, recentred=True)
        assert abs(getattr(apart, end)) == 1


def test_a_macro_average_without_spread_stays_its_value_to_the_last_bit() -> None:
    names = [f"d{place}" for place in range(7)]
    said = zip(INTENTS, ["ask", "ask", "leave"], strict=True)
    rows = [understood(gold, one, name, 1) for gold, one in said for name in names]
    sums = add_up(CARD, rows, names)
    resamples = Resamples.draw(7, 500, seed=1)
    figure = headline(INTENTS)["intent_macro_f1"]
    found = measure(figure, sums, resamples)
    assert found is not None
    assert found.value == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert found.low == found.value == found.high
    assert difference(figure, sums, sums, resamples) == Interval(0, 0, 0)


class World:
    """Dialogues of six turns over twelve intents, most of them rare and the rarer the harder."""

    def __init__(self) -> None:
        self.draw = np.random.default_rng(7)
        self.intents = [f"i{place:02}" for place in range(12)]
        shares = 1 / np.arange(1, 13) ** 1.3
        self.shares = shares / shares.sum()

    def dialogues(self, count: int) -> np.ndarray:
        """Return hits, gold and said of each intent, shape (dialogues, 3, intents)."""
        gold, other = self.draw.choice(12, size=(2, count, 6), p=self.shares)
        right = self.draw.random(gold.shape) < np.linspace(0.95, 0.4, 12)[gold]
        ones = np.eye(12)
        golds, saids = ones[gold], ones[np.where(right, gold, other)]
        return np.stack([(golds * saids).sum(1), golds.sum(1), saids.sum(1)], axis=1)


def f1_of(counts: np.ndarray) -> np.ndarray:
    hit, gold, said = np.moveaxis(counts, -2, 0)
    return np.asarray(2 * hit / (gold + said))


def test_the_macro_averages_interval_mostly_holds_the_true_one_of_rare_intents() -> None:
    """Where a resample's missing intents are filled with their F1 over all, 7 of 10 hold it."""
    world = World()
    true = f1_of(world.dialogues(20_000).sum(axis=0))
    held = filled = 0
    for seed in range(200):
        counts = world.dialogues(20)
        there = counts[:, 1].sum(axis=0) > 0
        intents = [name for name, one in zip(world.intents, there, strict=True) if one]
        counts, wanted = counts[..., there], true[there].mean()
        keys = [(name, intent) for name in ("hit", "gold", "said") for intent in intents]
        sums = Sums({key: place for place, key in enumerate(keys)}, counts.reshape(20, -1))
        resamples = Resamples.draw(20, 200, seed)
        found = measure(headline(intents)["intent_macro_f1"], sums, resamples)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low < found.value < found.high <= 1
        held += found.low <= wanted <= found.high
        drawn = np.einsum("rd,dki->rki", resamples.counts, counts)
        whole = np.broadcast_to(f1_of(counts.sum(axis=0)), drawn[:, 1].shape)
        with np.errstate(invalid="ignore"):
            means = np.where(drawn[:, 1] > 0, f1_of(drawn), whole).mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        filled += low <= wanted <= high
    assert held / 200 > 0.84
    assert filled / 200 < 0.75


def test_intervals_hold_the_value_and_differences_are_paired() -> None:
    generator = np.random.default_rng(0)
    right = generator.random(60) < 0.7
    sums = [np.array([[float(hit), 1.0] for hit in hits]) for hits in (right, right & False)]

    def share(totals: np.ndarray) -> np.ndarray:
        return np.asarray(totals[:, 0] / totals[:, 1])

    resamples = Resamples.draw(60, 2000, seed=3)
    found = resamples.interval(share, sums[0])
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value == right.mean() < found.high
    normal = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 60)  # for a share of 60
    assert found.high - found.low == pytest.approx(2 * normal, rel=0.15)
    same = resamples.difference(share, sums[0], sums[0])
    assert same is not None
    assert (same.low, same.value, same.high) == (0, 0, 0)  # unpaired draws would differ


def test_one_dialogue_gives_no_spread_and_nothing_gives_no_figure() -> None:
    sums = add_up(CARD, marks(SAID)[:3], ["a"])
    figures = result(sums, Resamples.draw(1, 100, seed=0))["figures"]
    assert figures["intent_accuracy"]["low"] == figures["intent_accuracy"]["value"]
    assert figures["call_exact"] is None


def test_systems_are_compared_figure_by_figure() -> None:
    walk_ids = ["a", "b", "c"]
    systems = {
        "adapter": add_up(CARD, marks(GOLD), walk_ids),
        "majority": add_up(CARD, marks(["ask"] * 8), walk_ids, slots=False),
    }
    against = compare(systems, "adapter", Resamples.draw(3, 100, seed=0))
    assert list(against) == ["majority"]
    assert against["majority"]["intent_accuracy"]["value"] == 0.5
    assert "slot_f1" not in against["majority"]


def test_turns_fall_into_buckets() -> None:
    turns = [0, 1, 2, 3, 4, 7, 8, 15, 16, 40]
    expected = ["0", "1", "2-3", "2-3", "4-7", "4-7", "8-15", "8-15", "16+", "16+"]
    assert [bucket_of(turn) for turn in turns] == expected
