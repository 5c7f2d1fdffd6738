"""What an untrained model is given so that it has a chance: examples, and schemas of the format.

Both come from the training split and the agent's card alone, never from the test split.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from specs.agent_format import ChatMessage, pieces, read_understanding, split_turns
from specs.domain import SlotType
from specs.seeds import digest
from trainer.evaluation import ChatDialogue, Encoder, with_examples
from trainer.scoring import Card


def example_turns(
    dialogues: Iterable[ChatDialogue], count: int, seed: int
) -> list[tuple[ChatMessage, ...]]:
    """Return whole turns of training dialogues, of as many different intents as there are.

    The frequent intents come first, and no intent comes twice before each has come once; within
    an intent `seed` draws. A turn is the user's message and all that the agent makes of it.
    """
    by_intent: dict[str, list[tuple[str, tuple[ChatMessage, ...]]]] = {}
    counts: Counter[str] = Counter()
    for dialogue in dialogues:
        _, turns = split_turns(dialogue.messages)
        for number, turn in enumerate(turns):
            found = turn_intent(turn)
            mistaken = any(one.role == "assistant" and not one.train for one in turn)
            if found is not None and turn[-1].role == "assistant" and not mistaken:
                counts[found] += 1
                some = by_intent.setdefault(found, [])
                some.append((digest(seed, dialogue.walk_id, number), tuple(turn)))
                if len(some) > 2 * count:  # no more than `count` are ever picked of one intent
                    some.sort(key=itemgetter(0))
                    del some[count:]
    ranked = sorted(by_intent, key=lambda intent: (-counts[intent], intent))
    drawn = {intent: sorted(by_intent[intent], key=itemgetter(0)) for intent in ranked}
    picked: list[tuple[ChatMessage, ...]] = []
    depth = 0
    while len(picked) < count and any(depth < len(drawn[intent]) for intent in ranked):
        picked += [drawn[intent][depth][1] for intent in ranked if depth < len(drawn[intent])]
        depth += 1
    return picked[:count]


def turn_intent(turn: Sequence[ChatMessage]) -> str | None:
    """Return the intent that the agent's understanding in a turn names."""
    found = [piece for piece in pieces(turn) if piece.kind == "understanding"]
    understanding = read_understanding(found[0].text) if found else None
    return understanding.intent if understanding else None


def fitting_examples(
    examples: Sequence[tuple[ChatMessage, ...]],
    encoder: Encoder,
    system: Sequence[ChatMessage],
    window: int,
) -> list[tuple[ChatMessage, ...]]:
    """Return the examples, in order, that leave the dialogue half of what the system leaves.

    Args:
        system: a dialogue's system message, alone; none where dialogues have none.
    """
    probe = ChatMessage("user", "?")
    bare = len(encoder.prompt([*system, probe]))
    room = bare + max(0, window - bare) // 2
    taken: list[tuple[ChatMessage, ...]] = []
    for example in examples:
        if len(encoder.prompt([*with_examples(system, [*taken, example]), probe])) <= room:
            taken.append(example)
    return taken


_JSON_TYPES: Mapping[SlotType, dict[str, Any]] = {
    "text": {"type": "string", "maxLength": 120},
    "id": {"type": "string", "maxLength": 120},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "list": {"type": "array", "items": {"type": "string", "maxLength": 120}, "maxItems": 20},
}


def schemas(card: Card) -> dict[str, str]:
    """Return the JSON schemas of an understanding and of a call, as JSON text.

    Intents and tools are those of the card; a slot or input may be any that the card knows, once
    each, in its type. Which belongs to which intent is left to the model: one schema for each
    intent would be a grammar that takes long to compile.
    """
    made = {"understanding": _schema("intent", card.intents, "slots")}
    if card.tools:
        made["call"] = _schema("call", card.tools, "arguments")
    return made


def _schema(key: str, known: Mapping[str, Mapping[str, SlotType]], values: str) -> str:
    kinds: dict[str, set[SlotType]] = {}
    for fields in known.values():
        for name, kind in fields.items():
            kinds.setdefault(name, set()).add(kind)
    properties = {name: _either(kinds[name]) for name in sorted(kinds)}
    inner = {"type": "object", "properties": properties, "additionalProperties": False}
    schema = {
        "type": "object",
        "properties": {key: {"enum": sorted(known)}, values: inner},
        "required": [key, values],
        "additionalProperties": False,
    }
    return json.dumps(schema, ensure_ascii=False)


def _either(kinds: set[SlotType]) -> dict[str, Any]:
    options = [_JSON_TYPES[kind] for kind in sorted(kinds)]
    return options[0] if len(options) == 1 else {"anyOf": options}
