"""The shop: what must hold of a sale, whatever is drawn; and all that it has comes up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from cluster import walk_sample
from cluster.rehearsal import rehearse
from specs.agent_chat import agent_messages
from specs.domain import Domain, Json
from specs.loader import open_domain
from specs.records import Dialogue, StopReason, Turn
from specs.replay import Replayed, replay, source_of
from specs.run_file import PolicySection
from specs.traits import TRAITS, acted, trait_findings
from specs.words import figures, is_number

SEED = 2


@cache
def shop() -> Domain:
    return open_domain("shop")


@cache
def played(kind: Any = "walk") -> tuple[Dialogue, ...]:
    policy = PolicySection(kind=kind, manager="rouge")
    return tuple(rehearse(shop(), 120 if kind == "walk" else 40, 0, SEED, policy))


@cache
def replayed() -> tuple[tuple[Replayed, ...], ...]:
    return tuple(tuple(replay(one, shop(), source_of(one, SEED))) for one in played())


def calls(tool: str) -> Iterator[tuple[Replayed, dict[str, Json], Json]]:
    """Yield the calls of a tool: the turn, the arguments and what came back."""
    for dialogue in replayed():
        for turn in dialogue:
            for calling, result in turn.calls:
                if calling.tool == tool:
                    yield turn, dict(calling.arguments), result.value


def price(id_: str) -> int:
    found: int = shop().document(id_).fields["price"]
    return found


def test_products_make_sense() -> None:
    products = {one.id: one.fields for one in shop().documents}
    assert len(products) >= 80
    assert len({one["title"] for one in products.values()}) == len(products)
    asked = [one["ask"] for product in products.values() for one in product["questions"]]
    assert len(asked) == len(set(asked)) == 3 * len(products)
    for id_, one in products.items():
        store, sizes = one["store"], one["sheet"]["sizes"]
        assert set(store["gone"]) < set(sizes) or not sizes
        assert (store["stock"] == 0) == bool(store["restock"])
        other = products[store["goes_with"]]
        assert store["goes_with"] != id_
        assert other["kind"] != one["kind"]


def test_everybody_has_words_of_several_kinds() -> None:
    domain = shop()
    assert len(domain.intents) >= 20
    assert len(domain.personas) >= 25
    speeches = [one.speech for one in domain.states.values() if one.speech.say is not None]
    speeches += [one.speech for one in domain.intents.values()]
    speeches += [one.speech for one in domain.edges]
    for speech in speeches:
        assert len(speech.references) >= 5
        assert len(speech.examples) >= 3
        assert speech.checks


def test_walks_end_and_all_intents_and_states_come_up() -> None:
    sampled = walk_sample.sample(shop(), 0, 2_000)
    assert sampled.stops()[StopReason.ENDED.value] >= 0.99 * 2_000
    assert 15 <= sum(sampled.turns()) / 2_000 <= 30
    visits = [
        *walk_sample.intent_visits(shop(), sampled.walks),
        *walk_sample.state_visits(shop(), sampled.walks),
    ]
    assert [one.name for one in visits if not one.count] == []
    assert len(sampled.documents) == len(shop().documents)


@pytest.mark.parametrize("kind", ["walk", "routed"])
def test_what_people_wrote_passes_the_checks(kind: str) -> None:
    failed = [
        (turn.state, turn.intent, check.name, turn.text)
        for dialogue in played(kind)
        for turn in dialogue.turns
        for check in turn.checks
        if not check.passed
    ]
    assert failed == []
    assert {one.stop_reason for one in played(kind)} == {StopReason.ENDED}


def test_only_what_is_in_stock_is_sold() -> None:
    sold = 0
    for turn, given, _ in calls("add_to_cart"):
        counted, shelf = next(
            (dict(one.arguments), result.value)
            for one, result in turn.calls
            if one.tool == "check_stock"
        )
        assert counted == given
        assert shelf["ok"]
        assert shelf["left"] > 0
        sizes = shop().document(str(given["product"])).fields["sheet"]["sizes"]
        assert given["size"] in (sizes or [""])
        sold += 1
    assert sold > 50


def test_sums_are_right() -> None:
    summed = 0
    for turn, _, result in calls("sum_up"):
        memory = turn.scope["memory"]
        cart, sent = memory["cart"], memory["shipping"]
        assert result["titles"] == [shop().document(id_).fields["title"] for id_ in cart]
        assert result["sizes"] == memory["sizes"]
        assert len(result["sizes"]) == len(cart) == len(set(cart))
        assert result["due"] == sum(map(price, cart)) + sent
        quote = turn.scope["tools"]["delivery_quote"]
        assert quote["served"]
        assert sent == (0 if sum(map(price, cart)) >= quote["free_from"] else quote["cost"])
        summed += 1
    assert summed > 30
    for turn, _, result in calls("read_cart"):
        assert (
            result["total"]
            == sum(result["prices"])
            == sum(map(price, turn.scope["memory"]["cart"]))
        )


def test_two_of_a_kind_are_compared_that_were_both_shown() -> None:
    compared = 0
    for turn, given, _ in calls("compare"):
        shown = [item["id"] for item in turn.scope["results"]]
        assert given["one"] in shown
        assert given["other"] in shown
        one, other = (shop().document(str(given[name])) for name in ("one", "other"))
        assert one.id != other.id
        assert one.fields["kind"] == other.fields["kind"]
        compared += 1
    assert compared > 20


def said(intent: str) -> Iterator[Turn]:
    return (one for dialogue in played() for one in dialogue.turns if one.intent == intent)


def test_what_leaves_the_cart_was_in_it_and_nothing_else_leaves() -> None:
    removed = 0
    for dialogue in played():
        for turn, answer in pairwise(dialogue.turns):
            if turn.intent != "remove_item":
                continue
            before, after = turn.memory["cart"], answer.memory["cart"]
            gone = turn.slots["product"]
            assert gone in before
            assert after == [id_ for id_ in before if id_ != gone]
            assert len(answer.memory["sizes"]) == len(after)
            assert answer.memory["total"] == sum(map(price, after))
            assert (answer.state == "cart_empty") == (not after)
            removed += 1
    assert removed > 5


def test_nobody_pays_for_nothing_and_nobody_asks_twice() -> None:
    paying = {"ask_handover", "ask_address", "confirm", "order_placed", "order_reserved"}
    turns = [turn for dialogue in played() for turn in dialogue.turns]
    assert all(turn.memory["cart"] for turn in turns if turn.state in paying)
    for dialogue in played():
        asked = [
            one.slots["question"] for one in dialogue.turns if one.intent == "product_question"
        ]
        assert len(asked) == len(set(asked))


def test_who_only_looks_buys_nothing() -> None:
    looking = [one for one in played() if one.turns[0].memory["mission"] == "browse"]
    assert len(looking) > 3
    assert not any(turn.memory["cart"] for one in looking for turn in one.turns)


def test_no_price_or_weight_is_to_be_known_by_heart() -> None:
    """Whatever number the agent says has come back from a tool, or was said by the user."""
    for dialogue in played()[:40]:
        messages = agent_messages(dialogue, shop(), source_of(dialogue, SEED))
        known: set[str] = set()
        for message in messages:
            spoken = message.content.split("\n")[-1]
            if message.role == "assistant" and not spoken.startswith("{"):
                told = {word for word in figures(spoken) if is_number(word) and len(word) > 1}
                assert told <= known, spoken
            known.update(figures(message.content))


def test_a_cart_is_read_by_the_agent_as_ids_and_by_people_as_titles() -> None:
    orders = [given for _, given, result in calls("place_order") if result["ok"]]
    assert orders
    ids = {one.id for one in shop().documents}
    assert all(set(given["products"]) <= ids for given in orders)
    assert json.loads(json.dumps(orders)) == orders


@pytest.mark.parametrize("trait", TRAITS)
def test_users_who_are_not_ideal(trait: str) -> None:
    shares = ((trait, 1.0),)
    assert trait_findings(shop(), shares) == []
    dialogues = rehearse(shop(), 12, 0, SEED, traits=shares)
    assert any(acted(one)[trait] for one in dialogues)
    assert {one.stop_reason for one in dialogues} <= {StopReason.ENDED, StopReason.GAVE_UP}
