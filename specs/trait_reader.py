"""Reading what traits are told and how they speak: the domain's own, over what is built in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from specs import yaml_source as source
from specs.domain import Fact, Reference, Speech
from specs.errors import Finding, InputError, nearest
from specs.expressions import Template
from specs.fact_reader import read_facts
from specs.reading import Reader
from specs.speech_reader import SPEECH_KEYS, override, read_speech
from specs.traits import TRAITS

BUILT_IN = Path(__file__).parent / "traits.yaml"

_MISHEARD: Final = "misheard"
_HEARD: Final = ("reply", "misheard")

CLOSING = ("goodbye", "bye", "farewell", "I give up", "I have to go")
"""How people take their leave where a domain has no `closing`."""


@dataclass(frozen=True, slots=True)
class Manners:
    """What a domain says of users who are not ideal: `Domain`'s fields of these names."""

    forbidden: frozenset[str]
    speeches: Mapping[str, Speech]
    facts: tuple[Fact, ...]
    mishearing: Speech


def read_traits(reader: Reader, node: source.Node | None, closing: Sequence[str]) -> Manners:
    """Return which traits are forbidden, how the others are spoken, and what they speak of.

    Args:
        closing: how the domain's people take their leave.
    """
    items = reader.mapping(node, "`traits`", (*TRAITS, "forbid")).items
    forbidden = set()
    for one in reader.names(items.get("forbid"), "`forbid`"):
        if one.text not in TRAITS:
            message = f"there is no trait {one.text!r}{nearest(one.text, TRAITS)}"
            reader.error(one.where, message, f"traits: {', '.join(TRAITS)}")
        forbidden.add(one.text)
    speeches, mishearing = _built_in(closing)
    for name, speech in speeches.items():
        if name not in items:
            continue
        what = f"the trait {name!r}"
        given = reader.mapping(items[name], what, _keys(name))
        speeches[name] = override(speech, read_speech(reader, given, "", what), given)
        if name == "gives_up" and "reference" in given.items and not closing:
            message = "`traits.gives_up` has references, and the domain has no `closing`"
            hint = "add `closing`, the phrases by which it is told that somebody leaves"
            reader.error(given.where, message, hint)
        if _MISHEARD in given.items:
            given = reader.mapping(given.items[_MISHEARD], f"`{_MISHEARD}`", SPEECH_KEYS)
            own = read_speech(reader, given, "", f"`{_MISHEARD}`")
            mishearing = override(mishearing, own, given)
            for reference in own.references:
                if _HEARD not in reference.say.paths:
                    hint = "put {{ reply.misheard }} into it"
                    message = "this reference does not say back what was misheard"
                    reader.error(reference.say.where, message, hint)
    facts = read_facts(reader, items.get("wrong_fact"))
    return Manners(frozenset(forbidden), speeches, facts, mishearing)


def _keys(name: str) -> frozenset[str]:
    return SPEECH_KEYS | {_MISHEARD} if name == "corrects_agent" else SPEECH_KEYS


def _built_in(closing: Sequence[str]) -> tuple[dict[str, Speech], Speech]:
    """Return each trait's speech, and the agent's where it mishears."""
    root, findings = source.read_yaml(BUILT_IN.read_bytes(), BUILT_IN.name)
    reader = Reader(BUILT_IN.parent, BUILT_IN.name)
    traits: Mapping[str, source.Node] = reader.mapping(root, "the traits", TRAITS).items
    speeches: dict[str, Speech] = {}
    mishearing = Speech()
    for name in traits:
        mapping = reader.mapping(traits[name], name, _keys(name))
        speeches[name] = read_speech(reader, mapping, "", name)
        if _MISHEARD in mapping.items:
            given = reader.mapping(mapping.items[_MISHEARD], _MISHEARD, SPEECH_KEYS)
            mishearing = read_speech(reader, given, "", _MISHEARD)
    broken: list[Finding] = [*findings, *reader.findings]
    if broken:
        raise InputError(broken)
    leave = speeches["gives_up"]
    assert leave.say is not None
    where = leave.say.where
    phrases = (f"{phrase[:1].upper()}{phrase[1:]}." for phrase in closing or CLOSING)
    references = tuple(Reference(Template(phrase, where), {}, where) for phrase in phrases)
    return {**speeches, "gives_up": replace(leave, references=references)}, mishearing
