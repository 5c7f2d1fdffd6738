"""Each kind of inconsistency, made by hand from a dialogue that has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cluster.domain_commands import TEMPLATE
from cluster.rehearsal import rehearse
from specs.domain import Domain
from specs.loader import open_domain
from specs.records import Dialogue, StopReason, Turn
from specs.replay import OtherSource, source_of
from tests.unit.kiosk import SEED, kiosk, played
from tests.unit.tiny_domain import changed as text_changed
from tests.unit.tiny_domain import tiny
from trainer.consistency import KINDS, Inconsistency, Tally, follow, inconsistencies


def found(dialogue: Dialogue, domain: Domain | None = None) -> list[Inconsistency]:
    followed = follow(dialogue, domain or kiosk(), source_of(dialogue, SEED))
    return inconsistencies(followed)


def kinds(dialogue: Dialogue) -> list[str]:
    return [one.kind for one in found(dialogue)]


def changed(dialogue: Dialogue, place: int, **values: Any) -> Dialogue:
    turns = list(dialogue.turns)
    turns[place] = replace(turns[place], **values)
    return replace(dialogue, turns=tuple(turns))


def with_(holds: Callable[[Turn], bool]) -> tuple[Dialogue, int]:
    """Return the first dialogue without a fault in which something holds of a turn, and which."""
    return next(
        (d, i) for d in played() for i, turn in enumerate(d.turns) if holds(turn) and not found(d)
    )


@pytest.mark.parametrize("domain", ["recipe", "shop", TEMPLATE])
def test_what_the_shipped_domains_play_has_none(domain: str | Path) -> None:
    opened = open_domain(domain)
    for dialogue in rehearse(opened, 60, 0, SEED):
        assert found(dialogue, opened) == []


def test_what_a_poor_domain_does_wrong_is_seen() -> None:
    # The kiosk has three sentences for its gossip, and some guests never get to the end of it.
    assert {kind for dialogue in played() for kind in kinds(dialogue)} == {"repeats", "not_ended"}


def test_how_it_ends() -> None:
    dialogue, _ = with_(lambda turn: turn.state == "bye")
    cut = replace(
        dialogue, turns=dialogue.turns[:-1], stop_reason=StopReason.NO_WORDS, error="mute"
    )
    not_ended, on_user = found(cut)
    assert not_ended == Inconsistency("not_ended", -1, "no_words: mute")
    assert (on_user.kind, on_user.turn) == ("ends_on_user", dialogue.turns[-2].index)


def test_what_cannot_be_followed_is_off_the_path_and_its_words_are_still_read() -> None:
    dialogue, index = with_(lambda turn: turn.intent == "ask")
    lost = changed(changed(dialogue, index, edge=999), index + 1, text="Keeper: mint, of course.")
    off, label = found(lost)
    assert (off.kind, off.turn, label.kind, label.turn) == (
        "off_path",
        index,
        "role_label",
        index + 1,
    )
    assert "no edge 999" in off.detail


def test_a_dialogue_of_another_run_is_no_finding_but_an_error() -> None:
    with pytest.raises(OtherSource):
        follow(played()[0], kiosk(), source_of(played()[0], SEED + 1))


def test_memory_that_jumps_is_off_the_path() -> None:
    dialogue, index = with_(lambda turn: turn.role == "agent" and turn.state == "offer")
    memory = {**dialogue.turns[index].memory, "page": 7}
    assert kinds(changed(dialogue, index, memory=memory)) == ["off_path"]


def chosen() -> tuple[Dialogue, int, int]:
    """Return a dialogue, where its offer stands, and where the user chooses from it at once."""
    dialogue, index = with_(lambda turn: turn.intent == "choose")
    offer = next(i for i in range(index, -1, -1) if "shown" in dialogue.turns[i].reply)
    assert len(dialogue.turns[offer].reply["shown"]) > 1
    return dialogue, offer, index


def test_a_choice_of_a_number_that_is_not_there() -> None:
    dialogue, _, index = chosen()
    slots = {**dialogue.turns[index].slots, "option": 9}
    assert "unshown_selection" in kinds(changed(dialogue, index, slots=slots))


def test_a_choice_that_stood_elsewhere_or_was_never_shown() -> None:
    dialogue, offer, index = chosen()
    shown = dialogue.turns[offer].reply["shown"]
    turned = found(changed(dialogue, offer, reply={"shown": [*shown[1:], shown[0]]}))
    assert [(one.kind, one.turn) for one in turned] == [("unshown_selection", index)]
    assert "was shown as number" in turned[0].detail
    [left_out] = found(changed(dialogue, offer, reply={"shown": []}))
    assert "was not among those shown" in left_out.detail


def test_a_choice_from_what_was_said_in_another_order() -> None:
    dialogue, offer, index = chosen()
    shown = dialogue.turns[offer].reply["shown"]
    titles = {document.id: str(document.fields["title"]) for document in kiosk().documents}
    text = f"There is {', '.join(titles[id_] for id_ in (*shown[1:], shown[0]))}. Which one?"
    [moved] = found(changed(dialogue, offer, text=text))
    assert (moved.kind, moved.turn) == ("unshown_selection", index)
    assert "was shown as number" in moved.detail


def test_a_choice_of_what_the_words_never_named() -> None:
    dialogue, offer, index = chosen()
    [unnamed] = found(changed(dialogue, offer, text="I have several, which one?"))
    assert (unnamed.kind, unnamed.turn) == ("unshown_selection", index)
    assert "was not named" in unnamed.detail


def test_a_choice_by_title_of_what_was_not_found() -> None:
    recipe = open_domain("recipe")
    dialogue, index = next(
        (d, i)
        for d in rehearse(recipe, 60, 0, SEED)
        for i, turn in enumerate(d.turns)
        if turn.intent == "select" and "title" in turn.slots
    )
    search = next(i for i in range(index, -1, -1) if dialogue.turns[i].result_ids)
    seed = dialogue.doc_ids[0]
    others = tuple(id_ for id_ in dialogue.doc_ids if id_ != seed)[:1]
    reply = {"shown_ids": list(others)}
    without = changed(dialogue, search, result_ids=others, reply=reply)
    turns = {one.turn for one in found(without, recipe) if one.kind == "unshown_selection"}
    assert index in turns


def test_an_id_that_nobody_has_shown() -> None:
    text = text_changed(
        ('{type: integer, value: "position(results, doc.id)"}', "{type: id, value: doc.id}"),
        ("checks: [says(slots.option)]", "checks: []"),
        ("slots: {option: 2, cups: 4}", "slots: {option: t2, cups: 4}"),
        ('when: "slots.option > 0 and slots.cups < 99"', 'when: "slots.cups < 99"'),
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        domain = tiny(Path(folder), text)
    dialogue, index = next(
        (d, i)
        for d in rehearse(domain, 30, 0, SEED)
        for i, turn in enumerate(d.turns)
        if turn.intent == "choose"
    )
    assert "unshown_selection" not in [one.kind for one in found(dialogue, domain)]
    slots = {**dialogue.turns[index].slots, "option": "t99"}
    kinds_ = [one.kind for one in found(changed(dialogue, index, slots=slots), domain)]
    assert "unshown_selection" in kinds_


@pytest.mark.parametrize(
    ("intent", "text", "unsaid"),
    [
        ("ask", "Do you have any tea?", ["query"]),  # demanded by a check
        ("choose", "Some of the nicest, please.", ["cups", "option"]),  # written, and demanded
    ],
)
def test_slots_that_are_not_said(intent: str, text: str, unsaid: list[str]) -> None:
    dialogue, index = with_(lambda turn: turn.intent == intent)
    details = [
        one.detail.partition(":")[0]
        for one in found(changed(dialogue, index, text=text))
        if (one.kind, one.turn) == ("slot_unsaid", index)
    ]
    assert details == unsaid


@pytest.mark.parametrize(
    ("query", "text", "said"),
    [("抹茶ラテ", "抹茶ラテはありますか", True), ("抹茶ラテ", "紅茶はありますか", False)],
)
def test_slots_in_a_script_without_blanks(query: str, text: str, said: bool) -> None:
    dialogue, index = with_(lambda turn: turn.intent == "ask")
    other = changed(dialogue, index, text=text, slots={"query": query})
    assert ("slot_unsaid" not in kinds(other)) is said


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1. Mint, green and cool", "list_opening"),
        ("- Мята, холодная и зелёная", "list_opening"),
        ("• 薄荷と紅茶", "list_opening"),
        ("Sure, here are three teas", "list_opening"),
        ("Certainly! Here is your mint", "list_opening"),
        ("Absolutely, I can help with that", "boilerplate"),
        ("As an AI I drink nothing", "boilerplate"),
        ("Try the [name of tea] today", "boilerplate"),
        ("Guest: have you any mint", "role_label"),
        ("Lovely. Assistant: what else", "role_label"),
    ],
)
def test_words_that_no_person_says(text: str, kind: str) -> None:
    dialogue, index = with_(lambda turn: turn.state == "bye")
    [one] = found(changed(dialogue, index, text=text))
    assert (one.kind, one.turn) == (kind, index)


@pytest.mark.parametrize(
    "text", ["Mint at tea.example, that is all", "A cup of tea, a cup of tea, a cup of tea."]
)
def test_a_document_may_hold_what_a_model_must_not_say(text: str) -> None:
    dialogue, index = with_(lambda turn: turn.state == "bye")
    assert kinds(changed(dialogue, index, text=text, source="reference")) == []
    assert kinds(changed(dialogue, index, text=text, source="model")) == ["boilerplate"]


def test_plain_words_are_no_list() -> None:
    dialogue, index = with_(lambda turn: turn.state == "bye")
    for text in (
        "2 cups, bye!",
        "Here you go, mind the rain.",
        "Sure. Bye.",
        "3.50 it is, thanks.",
    ):
        assert found(changed(dialogue, index, text=text)) == []


def test_the_same_again() -> None:
    dialogue, index = with_(lambda turn: turn.state == "bye" and turn.index > 3)
    earlier = next(turn for turn in dialogue.turns if turn.role == "agent")
    long = changed(dialogue, earlier.index, text="Good day, what may it be?")
    assert kinds(changed(long, index, text="Good day – what may it be")) == ["repeats"]
    short = changed(dialogue, earlier.index, text="Good day to you")
    assert kinds(changed(short, index, text="Good day you")) == []


def test_a_tally_counts_dialogues() -> None:
    tally = Tally()
    for kinds_ in (["repeats", "repeats", "off_path"], [], ["repeats"]):
        tally.add(kinds_)
    assert (tally.dialogues, tally.inconsistent) == (3, 2)
    assert {kind: count for kind, count in tally.by_kind.items() if count} == {
        "repeats": 2,
        "off_path": 1,
    }
    assert set(tally.by_kind) == set(KINDS)
