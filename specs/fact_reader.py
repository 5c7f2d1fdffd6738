"""Reading what a user may have wrong: `traits.wrong_fact`, a list of facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, cast

from specs import yaml_source as source
from specs.checks import says
from specs.domain import CheckCall, Fact, Slot, SlotType, Speech
from specs.errors import ExpressionError
from specs.expressions import Expression, Template
from specs.reading import TYPES, Reader
from specs.speech_reader import SPEECH_KEYS, read_speech

_ANSWER: Final = "the answer that sets it right"
_CLAIM: Final = "what the user has wrong"
_WRONG: Final = ("slots", "wrong")
_RIGHT: Final = ("reply", "right")
_KEYS: Final = SPEECH_KEYS | {"when", "type", "right", "wrong", "answer"}


def read_facts(reader: Reader, node: source.Node | None) -> tuple[Fact, ...]:
    """Return the facts, in their order.

    What is wrong is drawn into the claim's slot `wrong`, what is right stands in the answer's reply
    `right`; each side must say its own, as the check `says` takes it.
    """
    facts: list[Fact] = []
    for item in reader.items(node):
        if (fact := _fact(reader, item, len(facts))) is not None:
            facts.append(fact)
    return tuple(facts)


def _fact(reader: Reader, node: source.Node, number: int) -> Fact | None:
    mapping = reader.mapping(node, "a fact", _KEYS)
    items = mapping.items
    missing = [key for key in ("right", "wrong", "say", "reference", "answer") if key not in items]
    if missing:
        hint = "`right` and `wrong` are expressions, `answer` is what the agent says"
        reader.error(mapping.where, f"a fact needs {', '.join(f'`{m}`' for m in missing)}", hint)
        return None
    answer = reader.mapping(items["answer"], _ANSWER, SPEECH_KEYS)
    if lacking := [key for key in ("say", "reference") if key not in answer.items]:
        reader.error(answer.where, f"{_ANSWER} needs {', '.join(f'`{m}`' for m in lacking)}")
        return None
    right, wrong = reader.expression(items["right"]), reader.expression(items["wrong"])
    if right is None or wrong is None:
        return None
    kind = cast(SlotType, reader.choice(items.get("type"), "a fact's type", TYPES, "text"))
    drawn = Expression(f"pick({wrong.source})", wrong.where)
    said = Expression("slots.wrong", wrong.where)
    when = reader.expression(items["when"]) if "when" in items else None
    claim = read_speech(reader, mapping, "", _CLAIM)
    putting_right = read_speech(reader, answer, "", _ANSWER)
    for one in claim.references:
        if _WRONG not in one.say.paths:
            hint = "put {{ slots.wrong }} into it"
            reader.error(one.say.where, f"this reference of {_CLAIM} does not say it", hint)
    for one in putting_right.references:
        if not _tells(one.say, right):
            hint = "put {{ reply.right }} into it"
            reader.error(one.say.where, f"this reference of {_ANSWER} does not say what is", hint)
    return Fact(
        number=number,
        when=when,
        right=right,
        wrong=wrong,
        claim=_holding(claim, Slot("wrong", kind, wrong.where, value=drawn), said),
        answer=_holding(
            # The check reads the fact itself: what an agent speaks from, it is shown in training.
            putting_right,
            Slot("right", kind, right.where, value=right),
            right,
        ),
        where=mapping.where,
    )


def _tells(said: Template, right: Expression) -> bool:
    """Whether words hold what is right: as the reply, as the fact has it, or as it stands there."""
    if said.paths & {_RIGHT, *right.paths}:
        return True
    try:
        return not right.paths and says(said.source, right.evaluate({}))
    except ExpressionError:
        return True  # it cannot be evaluated anyway, which the checker tells


def _holding(speech: Speech, slot: Slot, said: Expression) -> Speech:
    """Return a speech with one slot, which it has to say."""
    check = CheckCall("says", (said,), f"says({said.source})", slot.where)
    return replace(speech, slots={slot.name: slot}, checks=(*speech.checks, check))
