"""What a model is shown for one utterance: a chat, a script to be continued, or what it learned.

What stays the same for many turns stands first (role, few-shot examples), then the history, then
what belongs to this turn, so that an engine's prefix cache serves the larger part of a prompt.
In a script the slots that the model writes stand before its words: a small model that has settled
on `query: tomato soup` mentions it. In a chat they come with the words as one JSON object. A model
that was trained as the agent is shown what it was trained on (`specs.agent_format`), up to its
words: nobody tells it what to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from specs.agent_format import ChatMessage, split_turns
from specs.domain import Example, RoleCard, Side, Slot, Speech
from specs.engine import Message
from specs.engine_section import Profile
from specs.expressions import Template
from specs.records import dump_json
from specs.scene import SceneError, coerce
from specs.seeds import later

INSTRUCTION = {"user": "Intention", "agent": "Instruction"}

MAX_TEXT = 600
"""Characters a schema lets an utterance have: the bound stops a model that loops."""


_QUOTES = frozenset("\"“'«「")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LINE_ENDS = re.compile(r"\s*\n\s*")


class Unparsed(ValueError):
    """A candidate that does not have the form it was asked for."""


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance of the history."""

    side: Side
    text: str


@dataclass(frozen=True, slots=True)
class Learned:
    """A conversation as a trained agent knows it, up to the words that it is to say.

    Attributes:
        prefix: what the agent has written of its message already: whole lines.
    """

    messages: tuple[ChatMessage, ...]
    prefix: str

    def last(self, earlier: int = 0) -> Learned:
        """Return it with no more than so many turns before the last one."""
        head, turns = split_turns(self.messages)
        kept = (message for turn in turns[-earlier - 1 :] for message in turn)
        return replace(self, messages=(*head, *kept))


@dataclass(frozen=True, slots=True)
class Ask:
    """All that a prompt is made from.

    Attributes:
        written: the slots (agent: reply fields) that the model writes.
        repair: the names of the checks that the last candidates failed; empty at first.
        learned: what a trained agent is shown, and nothing else; None for other models.
    """

    side: Side
    cards: Mapping[Side, RoleCard]
    system: str
    speech: Speech
    instruction: str
    written: tuple[Slot, ...]
    history: Sequence[Line]
    repair: tuple[str, ...] = ()
    material: str = ""
    learned: Learned | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt, and how its answer is decoded.

    Attributes:
        messages: of a chat; `text`: of a script.
        learned: of a trained agent, whose message goes on behind its prefix.
    """

    messages: tuple[Message, ...] = ()
    text: str = ""
    learned: Learned | None = None
    stop: tuple[str, ...] = ()
    schema: str | None = None

    def exact(self) -> str:
        """Return what the model sees, readable, before the chat template."""
        if self.text:
            return self.text
        said: list[tuple[str, str]] = [(one.role, one.content) for one in self.messages]
        if (told := self.learned) is not None:
            said = [(one.role, one.content) for one in told.messages]
            said.append(("assistant", told.prefix))
        return "\n".join(f"[{role}]\n{content}" for role, content in said)


@dataclass(frozen=True, slots=True)
class Shot:
    """An example with its instruction rendered."""

    instruction: str
    slots: Mapping[str, Any]
    say: str
    _scripts: dict[tuple[str, ...], str] = field(default_factory=dict, compare=False, repr=False)

    def script(self, *labels: str) -> str:
        """Return the example as a script shows it; made once, for it stands in every prompt.

        Args:
            labels: of the instruction, of each slot that the model writes, and of the speaker.
        """
        if labels not in self._scripts:
            told, *slots, speaker = labels
            values = (f"{slot}: {_plain(self.slots.get(slot))}" for slot in slots)
            lines = (f"{told}: {flat(self.instruction)}", *values, f"{speaker}: {flat(self.say)}")
            self._scripts[labels] = "\n".join(lines)
        return self._scripts[labels]


def render_shots(speech: Speech, count: int) -> tuple[Shot, ...]:
    """Render the first `count` examples, each in its own scope.

    Raises:
        ExpressionError: when an example's scope lacks what the instruction uses.
    """
    return tuple(_shot(speech.say, example) for example in speech.examples[:count])


def _shot(say: Template | None, example: Example) -> Shot:
    scope = {"slots": example.slots, **example.with_}
    # The same in every prompt, for the prefix cache, and wherever the domain's folder lies.
    draws = later("example", example.where.line, example.where.column)
    instruction = say.render(scope, draws) if say is not None else ""
    return Shot(instruction, example.slots, example.say.render(scope, draws))


def less(
    ask: Ask, profile: Profile, shots: tuple[Shot, ...]
) -> tuple[Ask, tuple[Shot, ...]] | None:
    """Return what is shown where all of it does not fit: half of what was said before, then fewer
    examples; None where there is nothing left to leave out."""
    if ask.learned is not None:
        earlier = len(split_turns(ask.learned.messages)[1]) - 1
        if earlier < 1:
            return None
        return replace(ask, learned=ask.learned.last(earlier // 2)), shots
    if shown := min(len(ask.history), profile.history):
        kept_lines = ask.history[len(ask.history) - shown // 2 :] if shown > 1 else []
        return replace(ask, history=kept_lines), shots
    return (ask, shots[:-1]) if shots else None


def render(ask: Ask, profile: Profile, shots: Sequence[Shot]) -> Prompt:
    """Return the prompt of one utterance, in the profile's form unless its speaker was trained."""
    if ask.learned is not None:
        return Prompt(learned=ask.learned)
    history = list(ask.history)[-profile.history :] if profile.history else []
    if profile.form == "script":
        return _script(ask, profile, shots, history)
    return _chat(ask, shots, history)


# -- a script to be continued


def _script(ask: Ask, profile: Profile, shots: Sequence[Shot], history: Sequence[Line]) -> Prompt:
    name = ask.cards[ask.side].name
    labels = (INSTRUCTION[ask.side], *(slot.name for slot in ask.written), name)
    blocks = [shot.script(*labels) for shot in shots]
    if profile.persona and ask.system:
        blocks.append(flat(ask.system))
    if history:
        said = (f"{ask.cards[line.side].name}: {flat(line.text)}" for line in history)
        blocks.append("\n".join(said))
    last = [f"{INSTRUCTION[ask.side]}: {flat(ask.instruction)}"]
    if ask.repair:
        last.append(f"(Mind: {', '.join(ask.repair)}.)")
    last.append(f"{ask.written[0].name}:" if ask.written else f"{name}:")
    blocks.append("\n".join(last))
    stop = ("\n\n",) if ask.written else ("\n",)
    return Prompt(text="\n\n".join(blocks), stop=stop)


def flat(text: str) -> str:
    """Return a text on one line: in a script, a line's end ends what it says."""
    return _LINE_ENDS.sub(" ", text).strip() if "\n" in text else text.strip()


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return flat(value) if isinstance(value, str) else dump_json(value)


def parse(ask: Ask, form: str, text: str) -> tuple[str, dict[str, Any]]:
    """Return the words and the written slots of a candidate.

    Raises:
        Unparsed: when it does not have the form that was asked for, or a slot is not of its type.
    """
    if form == "script":
        said, raw = _parse_script(ask, sound(text))
    elif ask.written:
        said, raw = _parse_json(ask, text)
    else:
        said, raw = sound(text), {}
    slots = {}
    for slot in ask.written:
        if slot.name not in raw or raw[slot.name] in ("", None):
            raise Unparsed(f"no {slot.name}")
        try:
            slots[slot.name] = coerce(slot, _read(slot, raw[slot.name]))
        except SceneError as error:
            raise Unparsed(str(error)) from None
    return clean(said), slots


def _parse_script(ask: Ask, text: str) -> tuple[str, dict[str, Any]]:
    if not ask.written:
        return text.strip().split("\n", 1)[0], {}
    labels = [*(slot.name for slot in ask.written), ask.cards[ask.side].name]
    lines = [line.strip() for line in f"{labels[0]}:{text}".strip().split("\n") if line.strip()]
    if len(lines) < len(labels):
        raise Unparsed("fewer lines than asked for")
    values = []
    for label, line in zip(labels, lines, strict=False):
        if not line.startswith(f"{label}:"):
            raise Unparsed(f"no line {label!r}")
        values.append(line[len(label) + 1 :].strip())
    return values[-1], dict(zip(labels[:-1], values, strict=False))


def _parse_json(ask: Ask, text: str) -> tuple[str, dict[str, Any]]:
    try:
        data = json.loads(text)
        # JSON can escape half a surrogate pair, which neither a tokenizer nor Parquet takes.
        data = json.loads(sound(dump_json(data)))
        said = data.pop(_words(ask.written))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Unparsed("not the JSON object that was asked for") from None
    if not isinstance(said, str):
        raise Unparsed("no words")
    return said, data


def sound(text: str) -> str:
    """Return a text that can be encoded and printed anywhere.

    Half a surrogate pair becomes a question mark; control characters, which nobody says and a
    terminal obeys, are left out.
    """
    return _CONTROL.sub("", text.encode(errors="replace").decode())


def _words(written: Sequence[Slot]) -> str:
    """Return the key that the words have beside the slots."""
    return "utterance" if any(slot.name == "text" for slot in written) else "text"


def _read(slot: Slot, value: Any) -> Any:
    if slot.type == "list" and isinstance(value, str):
        try:
            items = json.loads(value)
        except (ValueError, RecursionError):
            items = None
        if isinstance(items, list):
            return items
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def clean(text: str) -> str:
    """Return an utterance without the blanks and the pair of quotes around it; nothing else."""
    text = " ".join(text.split())
    if text[:1] not in _QUOTES:
        return text
    for left, right in ('""', "“”", "''", "«»", "「」"):
        if len(text) > 2 and text[0] == left and text[-1] == right and left not in text[1:-1]:
            return text[1:-1].strip()
    return text


def complete(ask: Ask, form: str, said: str, slots: Mapping[str, Any]) -> str:
    """Return an answer in the form that the prompt asks for: the inverse of `parse`."""
    if form != "script":
        return _object(ask, slots, said) if ask.written else said
    if not ask.written:
        return f" {flat(said)}"
    values = [_plain(slots.get(slot.name)) for slot in ask.written]
    labels = [*(slot.name for slot in ask.written[1:]), ask.cards[ask.side].name]
    lines = [f" {values[0]}"]
    lines += [
        f"{label}: {value}" for label, value in zip(labels, [*values[1:], flat(said)], strict=True)
    ]
    return "\n".join(lines)


# -- a chat


def _chat(ask: Ask, shots: Sequence[Shot], history: Sequence[Line]) -> Prompt:
    name = ask.cards[ask.side].name
    other = ask.cards["agent" if ask.side == "user" else "user"].name
    parts = [ask.system] if ask.system else []
    parts.append(
        f"You speak as the {name}. The other side is the {other}. Answer with the {name}'s next "
        "utterance alone, as the instruction in brackets says."
    )
    if shots:
        parts.append("Examples of instructions and utterances:")
        parts += [f"[{flat(shot.instruction)}]\n{_answer(ask, shot)}" for shot in shots]
    messages = [Message("system", "\n\n".join(parts))]
    last = f"[{flat(ask.instruction)}]"
    if ask.repair:
        last += f"\n[Your last attempt failed these checks: {', '.join(ask.repair)}. Mind them.]"
    for line in history:
        messages.append(Message("assistant" if line.side == ask.side else "user", line.text))
    messages.append(Message("user", last))
    schema = dump_json(schema_of(ask.written)) if ask.written else None
    return Prompt(messages=tuple(_alternating(messages)), schema=schema)


def _answer(ask: Ask, shot: Shot) -> str:
    if not ask.written:
        return shot.say
    return _object(ask, shot.slots, shot.say)


def _object(ask: Ask, slots: Mapping[str, Any], said: str) -> str:
    written = {slot.name: slots.get(slot.name) for slot in ask.written}
    return dump_json({**written, _words(ask.written): said})


def _alternating(messages: Sequence[Message]) -> list[Message]:
    """Join neighbours of one role: many chat templates refuse two in a row."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            joined[-1] = Message(message.role, f"{joined[-1].content}\n\n{message.content}")
        elif joined and joined[-1].role == "system" and message.role == "assistant":
            joined += [Message("user", "[You speak first.]"), message]
        else:
            joined.append(message)
    return joined


def schema_of(written: Sequence[Slot]) -> dict[str, Any]:
    """Return the JSON schema of an utterance with the slots that the model writes."""
    slots = {slot.name: _slot_schema(slot) for slot in written}
    return object_schema(slots | utterances(_words(written)))


def utterances(*keys: str) -> dict[str, Any]:
    """Return the schemas of keys that hold an utterance each."""
    return {key: {"type": "string", "minLength": 1, "maxLength": MAX_TEXT} for key in keys}


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these properties, all of them and no other."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _slot_schema(slot: Slot) -> dict[str, Any]:
    if slot.one_of:
        return {"enum": list(slot.one_of)}
    if slot.type == "list":
        return {"type": "array", "items": _plain_schema(slot.of), "maxItems": 12}
    return _plain_schema(slot.type)


def _plain_schema(kind: str) -> dict[str, Any]:
    if kind in ("text", "id"):
        return {"type": "string", "minLength": 1, "maxLength": 120}
    return {"type": kind}
