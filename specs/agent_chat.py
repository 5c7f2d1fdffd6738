"""A dialogue as the chat that the agent learns from, in the format of `specs.agent_format`.

Invariants: roles alternate behind the system message (user, assistant, tool, assistant, ...); loss
falls on the agent's messages alone, and not on those in which it has misheard the user; the last
message is the agent's. What only the simulator knows
(persona, goal, where a document was planted) never gets into the chat. What the agent does speak
from, and the user has not said, stands in a `tool` message before it speaks: it is never asked to
know a document by heart.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specs.agent_format import ChatMessage, ToolCall, Understanding
from specs.ahead import THEN, then_of
from specs.domain import Domain, Speech
from specs.expressions import Expression
from specs.mishearing import misheard
from specs.plan import PlanSource
from specs.records import Dialogue, Turn, dump_json
from specs.replay import Replayed, replay
from specs.scene import Calling, CallResult
from specs.seeds import later

UNNAMED = "(other)"
"""The intent that stands for edges without one; the brackets keep it off the domain's own."""

BRIEF = 80
"""Characters up to which a document's text is shown among search results."""

SEARCH = {"query": "text", "page": "integer", "limit": "integer"}
"""The arguments of `search` that are the agent's to choose; `min_score` is the store's affair."""

_FACT_CHECKS = frozenset({"grounded", "lists", "mentions", "says"})
_NOT_FACTS = frozenset({"persona", "goal", "slots", "reply", "heard", "turn"})
_RESULTS = frozenset({"results", "result", "tools"})


# -- what the agent is for


def agent_card(domain: Domain) -> dict[str, Any]:
    """Return what the agent is for, as JSON: the metadata `duologue.agent` of curated files.

    `{"domain", "description", "intents": {name: {"description", "slots": {slot: type}}},
    "tools": {name: {"description", "input": {argument: type}}}}`. An intent has the slots of all
    edges that carry it, and `then` where another intent may be said with it; edges without an
    intent go by `UNNAMED`, and so do words that fit nothing where the agent has learned to come
    back to the point.
    """
    slots: dict[str, dict[str, str]] = {name: {} for name in domain.intents}
    for speech, name in _understood(domain):
        slots.setdefault(name, {}).update(_types(speech))
    used = {edge.intent or UNNAMED for edge in domain.edges}
    for name in _begun(domain):
        slots.setdefault(name, {})[THEN] = "id"
    if domain.agent.speech.references or domain.facts:
        used.add(UNNAMED)
        slots.setdefault(UNNAMED, {})
    described = {name: intent.description for name, intent in domain.intents.items()}
    described.setdefault(UNNAMED, "Anything else.")
    intents = {
        name: {"description": described[name], "slots": types}
        for name, types in slots.items()
        if name in used
    }
    tools = {
        name: {"description": tool.description, "input": dict(tool.input)}
        for name, tool in domain.tools.items()
    }
    return {
        "domain": domain.name,
        "description": domain.description,
        "intents": intents,
        "tools": _search(domain) | tools,
    }


def _understood(domain: Domain) -> Iterator[tuple[Speech, str]]:
    """Yield the speeches that an intent has, the edges' own ones and then what is declared."""
    for intent in domain.intents.values():
        yield intent.speech, intent.name
    for edge in domain.edges:
        yield edge.speech, edge.intent or UNNAMED
    for intent in domain.intents.values():
        yield intent.speech, intent.name


def _begun(domain: Domain) -> Iterator[str]:
    """Yield the intents with which another one may be said, before it is asked for."""
    asked = {edge.from_ for edge in domain.edges if edge.ahead}
    for edge in domain.edges:
        states = (domain.states.get(case.to) for case in edge.to)
        if not edge.speech.slots and any(
            state is not None and state.name in asked and state.call is None for state in states
        ):
            yield edge.intent or UNNAMED


def _types(speech: Speech) -> dict[str, str]:
    return {slot.name: slot.type for slot in speech.slots.values()}


def _search(domain: Domain) -> dict[str, Any]:
    calls = [state.call for state in domain.states.values() if state.call is not None]
    used = {name for call in calls if call.tool == "search" for name in call.arguments}
    if not any(call.tool == "search" for call in calls):
        return {}
    arguments = {name: type_ for name, type_ in SEARCH.items() if name in used}
    return {"search": {"description": "Finds documents.", "input": arguments}}


def system_message(card: Mapping[str, Any]) -> str:
    """Return the system message of a card: each intent and each tool once, on a line.

    It is as short as is clear, since it stands before every dialogue: a slot's type is left out
    where it is text, and so are full stops.
    """
    lines = [
        card["description"] or f"An assistant for {card['domain']}.",
        'Write what the user wants as {"intent":...,"slots":{...}}, then the answer.',
        "Intents:",
        *(_line(name, one["slots"], one) for name, one in card["intents"].items()),
    ]
    if card["tools"]:
        lines[1] = (
            'Write what the user wants as {"intent":...,"slots":{...}}, then call tools as '
            '{"call":...,"arguments":{...}}, then the answer.'
        )
        lines.append("Tools:")
        lines += [_line(name, one["input"], one) for name, one in card["tools"].items()]
    return "\n".join(lines)


def _line(name: str, arguments: Mapping[str, str], entry: Mapping[str, Any]) -> str:
    given = ", ".join(
        key if type_ == "text" else f"{key}: {type_}" for key, type_ in arguments.items()
    )
    head = f"{name}({given})" if given else name
    description = entry["description"].strip().removesuffix(".")
    return f"{head}: {description}" if description else head


# -- a dialogue


def agent_messages(dialogue: Dialogue, domain: Domain, source: PlanSource) -> list[ChatMessage]:
    """Return a dialogue as the agent's chat; loss falls on what the assistant has not misheard.

    A last user's turn that nobody answered is left out; of a dialogue in which the agent never
    speaks the system message alone remains.

    Args:
        domain: as it was when the dialogue was made (the run's own copy of it).
        source: of the dialogue's plan (`specs.replay.source_of`).

    Raises:
        ReplayError: when the record cannot be followed along the domain.
        ExpressionError: when what a state speaks from cannot be evaluated.
    """
    return replayed_messages(dialogue, domain, replay(dialogue, domain, source))


def replayed_messages(
    dialogue: Dialogue, domain: Domain, turns: Iterable[Replayed]
) -> list[ChatMessage]:
    """Return the chat of a dialogue that is played again already; see `agent_messages`."""
    messages = [ChatMessage("system", system_message(agent_card(domain)))]
    heard: Replayed | None = None
    for replayed in turns:
        if replayed.turn.role == "user":
            heard = replayed
            messages.append(ChatMessage("user", replayed.turn.text))
            continue
        draws = later(dialogue.walk_id, replayed.turn.index, "check")
        messages += _answered(domain, heard, replayed, draws)
        heard = None
    if messages[-1].role == "user":
        messages.pop()
    return messages


def _answered(
    domain: Domain, heard: Replayed | None, said: Replayed, draws: random.Random
) -> Iterator[ChatMessage]:
    """Yield what the agent wrote in one turn, with what came back in between."""
    turn = heard.turn if heard is not None else None
    begun = answer_begun(domain, turn, said.speech, said.scope, said.calls, draws)
    yield from begun.messages
    # What was misheard stands there, so that the correction makes sense; nobody is to learn it.
    learned = turn is None or misheard(domain, turn) is None
    yield ChatMessage("assistant", begun.prefix + said.turn.text, learned)


@dataclass(frozen=True, slots=True)
class Begun:
    """What the agent has written, and what has come back to it, before it answers in words.

    Attributes:
        prefix: the lines of its own message that stand before the words, each with its end.
    """

    messages: tuple[ChatMessage, ...]
    prefix: str


def answer_begun(
    domain: Domain,
    heard: Turn | None,
    speech: Speech,
    scope: Mapping[str, Any],
    calls: Sequence[tuple[Calling, CallResult]],
    draws: random.Random,
) -> Begun:
    """Return what stands between the user's words and the agent's.

    Args:
        heard: what the user said; None where the agent opens.
        speech: of the state in which the agent speaks.
        scope: what its checks see.
        calls: made before it speaks, with what they brought.
        draws: for arguments of checks that draw.
    """
    messages: list[ChatMessage] = []
    written: list[str] = []
    slots: Mapping[str, Any] = {}
    if heard is not None:
        understood = _understood_in(domain, heard)
        slots = understood.slots
        written.append(understood.written())
    contents = [tool_content(domain, calling, result) for calling, result in calls]
    facts = spoken_facts(speech, scope, [slots, *contents], draws, bool(contents))
    for (calling, _), content in zip(calls, contents, strict=True):
        written.append(tool_call(calling).written())
        last = content is contents[-1]
        messages.append(ChatMessage("assistant", "\n".join(written), True))
        messages.append(tool_message(content, facts if last else ()))
        written = []
    if facts and not contents:
        if written:
            messages.append(ChatMessage("assistant", "\n".join(written), True))
        messages.append(tool_message({}, facts))
        written = []
    return Begun(tuple(messages), "".join(f"{line}\n" for line in written))


def _understood_in(domain: Domain, heard: Turn) -> Understanding:
    """Return what the agent should take a user's turn for."""
    unheard = misheard(domain, heard)
    taken = domain.edges[heard.edge] if heard.edge >= 0 else None
    given = heard.slots if taken is not None else {}  # what is wrong is no slot
    intent = heard.intent if unheard is None else unheard[1].intent or ""
    if (then := then_of(domain, heard)) is not None:
        given = {**given, THEN: then.intent or UNNAMED}
    return understanding(intent, given, taken.speech if taken is not None else Speech())


def understanding(intent: str, slots: Mapping[str, Any], speech: Speech) -> Understanding:
    """Return what the agent should take a user's turn for: slots in declared order, none null."""
    order = [*(name for name in speech.slots if name in slots), *slots]
    given = {name: slots[name] for name in dict.fromkeys(order) if slots[name] is not None}
    return Understanding(intent or UNNAMED, given)


def tool_call(calling: Calling) -> ToolCall:
    """Return a call as the agent writes it: what it may choose, without nulls."""
    arguments = {
        name: value
        for name, value in calling.arguments.items()
        if value is not None and (calling.tool != "search" or name in SEARCH)
    }
    return ToolCall(calling.tool, arguments)


def tool_content(domain: Domain, calling: Calling, result: CallResult) -> dict[str, Any]:
    """Return what a call brings, as the agent reads it.

    Documents are shown in brief: their numbers, booleans and short texts, without their lists.
    """
    if calling.tool != "search":
        return {"result": result.value}
    return {"results": [_brief(id_, domain.document(id_).fields) for id_ in result.ids]}


def _brief(id_: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    shown = {
        name: value
        for name, value in fields.items()
        if isinstance(value, int | float) or (isinstance(value, str) and 0 < len(value) <= BRIEF)
    }
    return {**shown, "id": id_} if "id" in shown else {"id": id_, **shown}


def tool_message(content: Mapping[str, Any], facts: Sequence[Any]) -> ChatMessage:
    """Return the message in which something comes back: of a call, facts, or both."""
    shown = {**content, "facts": list(facts)} if facts else content
    return ChatMessage("tool", dump_json(shown))


def spoken_facts(
    speech: Speech,
    scope: Mapping[str, Any],
    known: Iterable[Any],
    draws: random.Random,
    called: bool,
) -> list[Any]:
    """Return what a state speaks from that the agent would not know otherwise.

    These are the arguments of the checks that hold its words against something (`grounded`,
    `mentions`, `says`, `lists`), as texts, numbers and lists of texts. Arguments that read the
    persona, the goal or what was said are none, nor are texts that stand in `known`. Numbers are
    kept wherever they come from: each has its place in the list, which must not depend on a
    coincidence (the last step's number is also the number of steps).

    Args:
        speech: of the state in which the agent speaks.
        scope: what its checks see.
        known: JSON values that the agent has before it in this turn: the user's slots, results.
        draws: for arguments that draw.
        called: a tool was called in this turn, so that what is read of its result is known.
    """
    seen = {_key(text) for value in known for text in _texts(value)}
    facts: list[Any] = []
    for source in _fact_arguments(speech, called):
        value = source.evaluate(scope, draws)
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, str):
                if _key(item) and _key(item) not in seen:
                    seen.add(_key(item))
                    facts.append(item)
            elif isinstance(item, int | float) and not isinstance(item, bool):
                facts.append(item)
    return facts


def _fact_arguments(speech: Speech, called: bool) -> list[Expression]:
    """Return the arguments that may give facts, each source once, in the order of the checks."""
    found: dict[Expression, None] = {}
    for check in speech.checks:
        if check.name not in _FACT_CHECKS:
            continue
        for argument in check.arguments:
            roots = {path[0] for path in argument.usage.paths}
            if roots & _NOT_FACTS or (called and roots and roots <= _RESULTS):
                continue
            found[argument] = None  # expressions are equal by their source
    return list(found)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _key(text: str) -> str:
    return " ".join(text.split()).casefold()
