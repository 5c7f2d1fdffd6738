"""What counts as right, and the figures made of it, against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from specs.domain import SlotType
from trainer.agent_format import ChatMessage
from trainer.bootstrap import Resamples
from trainer.evaluation import Prediction
from trainer.figures import Marked, add_up, bucket_of, compare, result
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


def test_the_macro_averages_interval_keeps_the_intents_that_a_resample_lacks() -> None:
    """Ten dialogues of a known intent, each with a rare one that nobody gets right."""
    names = [f"d{i}" for i in range(10)]
    rows = [understood("ask", "ask", name, 1) for name in names]
    rows += [understood(f"rare {name}", "ask", name, 2) for name in names]
    card = replace(
        CARD, intents={gold: {} for gold in ["ask", *(f"rare {name}" for name in names)]}
    )
    figures = result(add_up(card, rows, names), Resamples.draw(10, 500, seed=1))["figures"]
    found = figures["intent_macro_f1"]
    assert found["value"] == pytest.approx(2 / 3 / 11)  # one of eleven, at 2 * 10 / (10 + 20)
    assert found["low"] == found["high"] == pytest.approx(found["value"])


def test_intervals_hold_the_value_and_differences_are_paired() -> None:
    generator = np.random.default_rng(0)
    right = generator.random(60) < 0.7
    sums = [np.array([[float(hit), 1.0] for hit in hits]) for hits in (right, right & False)]

    def share(totals: np.ndarray, _: np.ndarray) -> np.ndarray:
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
