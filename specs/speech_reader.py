"""Reading what is said: slots, examples, references, checks, intents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from specs import yaml_source as source
from specs.domain import CheckCall, Example, Intent, Reference, Slot, SlotType, Speech
from specs.expressions import Expression
from specs.reading import TYPES, Reader
from specs.records import dump_json
from specs.syntax import SyntaxFault, split_call
from specs.values import kind_of

SPEECH_KEYS = frozenset({"say", "examples", "reference", "checks"})
_INTENT_KEYS = SPEECH_KEYS | {"description", "slots", "echo", "ahead"}
_SLOT_KEYS = ("type", "of", "one_of", "value", "reference")


def read_slots(reader: Reader, node: source.Node | None, what: str) -> dict[str, Slot]:
    """Return the slots of an intent, or the reply of a state, by name."""
    mapping = reader.mapping(node, what)
    return {name: _slot(reader, name, value, what) for name, value in mapping.items.items()}


def _type(reader: Reader, node: source.Node | None, what: str, default: str) -> SlotType:
    return cast(SlotType, reader.choice(node, what, TYPES, default))


def _slot(reader: Reader, name: str, node: source.Node, what: str) -> Slot:
    label = f"{what}: the type of {name!r}"
    if isinstance(node, source.Sequence):
        if len(node.items) != 1:
            hint = f"write [id], or {{one_of: [...]}} for {name!r}"
            reader.error(node.where, f"{what}: a list slot names one type", hint)
        of = _type(reader, node.items[0] if node.items else None, label, "text")
        return Slot(name, "list", node.where, of)
    if isinstance(node, source.Scalar):
        return Slot(name, _type(reader, node, label, "text"), node.where)
    mapping = reader.mapping(node, f"the slot {name!r}", _SLOT_KEYS).items
    one_of = tuple(reader.json(item) for item in reader.items(mapping.get("one_of")))
    kind = _type(reader, mapping.get("type"), label, kind_of(one_of[0]) if one_of else "text")
    value, reference = mapping.get("value"), mapping.get("reference")
    return Slot(
        name=name,
        type=kind,
        where=node.where,
        of=_type(reader, mapping.get("of"), f"{label} items", "text"),
        one_of=one_of,
        value=reader.expression(value) if value is not None else None,
        reference=reader.expression(reference) if reference is not None else None,
    )


def _example(reader: Reader, node: source.Node) -> Example | None:
    mapping = reader.mapping(node, "an example", ("with", "say", "slots")).items
    if "say" not in mapping:
        reader.error(node.where, "an example needs `say`, the words")
        return None
    scope = reader.mapping(mapping.get("with"), "`with`")
    slots = reader.mapping(mapping.get("slots"), "an example's slots")
    say = reader.template(mapping["say"], "an example's `say`")
    return Example(source.plain(scope), say, source.plain(slots), node.where)


def _reference(reader: Reader, node: source.Node) -> Reference | None:
    if isinstance(node, source.Mapping) and set(node.items) != {"file"}:
        mapping = reader.mapping(node, "a reference", ("say", "slots")).items
        if "say" not in mapping:
            reader.error(node.where, "a reference needs `say`, the words")
            return None
        slots = reader.assignments(mapping.get("slots"), "a reference's slots")
        return Reference(reader.template(mapping["say"], "a reference"), slots, node.where)
    return Reference(reader.template(node, "a reference"), {}, node.where)


def _check(reader: Reader, node: source.Node) -> CheckCall | None:
    if not isinstance(node, source.Scalar):
        reader.error(node.where, "a check is a name with arguments, such as `max_words(30)`")
        return None
    text = node.text.strip()
    try:
        name, arguments = split_call(text)
    except SyntaxFault:
        hint = "its arguments stand in parentheses, as in `max_words(30)`"
        if text.count("(") > text.count(")"):
            hint = "inside [ ], put a check with several arguments in quotes: a comma ends an item"
        reader.error(node.where, f"the check {text!r} is no name with arguments", hint)
        return None
    made = [reader.expression(source.Scalar(one, node.where)) for one in arguments]
    return CheckCall(name, tuple(one for one in made if one), text, node.where)


def read_speech(reader: Reader, mapping: source.Mapping, slots: str, what: str) -> Speech:
    """Return what a mapping says with its keys `say`, `examples`, `reference`, `checks`.

    Args:
        slots: the key of its slots (`slots` or `reply`).
    """
    items = mapping.items
    examples = [_example(reader, node) for node in reader.items(items.get("examples"))]
    references = [_reference(reader, node) for node in reader.items(items.get("reference"))]
    checks = [_check(reader, node) for node in reader.items(items.get("checks"))]
    return Speech(
        say=reader.template(items["say"], f"`say` of {what}") if "say" in items else None,
        slots=read_slots(reader, items.get(slots), f"`{slots}` of {what}"),
        examples=tuple(one for one in examples if one),
        references=tuple(one for one in references if one),
        checks=tuple(one for one in checks if one),
    )


def override(speech: Speech, own: Speech, given: source.Mapping) -> Speech:
    """Return an intent's speech with what an edge brings by itself in its place, key by key."""
    keys = {"say": "say", "slots": "slots", "examples": "examples", "checks": "checks"}
    keys["reference"] = "references"
    changes = {keys[key]: getattr(own, keys[key]) for key in given.items if key in keys}
    return replace(speech, **changes)


def read_echo(reader: Reader, mapping: source.Mapping) -> Expression | None:
    """Return how the agent says an intent or an edge back in short, if it can."""
    node = mapping.items.get("echo")
    text = reader.text(node, "`echo`").strip()
    if node is None or not text:
        return None
    if mapping.items.get("slots") is not None:
        hint = "leave `echo` out: only what has no slots can be misheard"
        reader.error(node.where, "`echo` of what has slots", hint)
        return None
    if "{{" in text or "{%" in text:
        reader.error(node.where, "`echo` is no template", "write the words, such as: the eel stew")
        return None
    return Expression(dump_json(text), node.where)


def read_intents(reader: Reader, node: source.Node | None) -> Mapping[str, Intent]:
    """Return the domain's intents by name."""
    intents = {}
    for name, value in reader.mapping(node, "`intents`").items.items():
        what = f"the intent {name!r}"
        mapping = reader.mapping(value, what, _INTENT_KEYS)
        description = reader.text(mapping.items.get("description"), "a description")
        speech = read_speech(reader, mapping, "slots", what)
        echo = read_echo(reader, mapping)
        ahead = reader.flag(mapping.items.get("ahead"), "`ahead`")
        intents[name] = Intent(name, description, speech, mapping.where, echo, ahead)
        if "say" not in mapping.items:
            reader.error(mapping.where, f"{what} needs `say`, what the user is to do")
    return intents
