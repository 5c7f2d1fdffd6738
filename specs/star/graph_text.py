"""The states, edges and intents of an imported domain, as data for its YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from specs.star.asking import Asking, Slot
from specs.star.cases import OUTCOME, Cases
from specs.star.fields import PLACEHOLDER, Field, snake
from specs.star.files import LEAVE, Task
from specs.star.flow import MISSING, MORE, START, Flow, Guess, Move
from specs.star.turns import BEGIN, LEAVING, Heard
from specs.star.wording import LEAST, Listener, Wording

Data = dict[str, Any]

REQUEST = "request"
"""The memory that counts the requests of a dialogue, from 0."""

STEP = "step"
_ASKED = f"doc.requests[memory.{REQUEST}]"
_MORE = f"memory.{REQUEST} + 1 < doc.requests | length"
_LATER = f"(doc.requests[memory.{REQUEST} + 1] if {_MORE} else doc.requests | last)"
"""The next request; where there is none still values, so that words that ask again are known."""

_FIRST = "Say what you want, all at once: that"
_LIKE_PEOPLE = 0.3
_WORDS_USER = 40
_WORDS_AGENT = 70


@dataclass(slots=True)
class GraphText:
    """What `domain.yaml` says of the graph.

    Attributes:
        short: edges with fewer references of people than free talk needs, and how many they have.
    """

    intents: dict[str, Data] = field(default_factory=dict)
    states: dict[str, Data] = field(default_factory=dict)
    edges: list[Data] = field(default_factory=list)
    short: list[tuple[str, int]] = field(default_factory=list)

    def guesses(self) -> list[Guess]:
        """Return what stands in for people's words."""
        return [
            Guess(
                f"{intent} has stock answers",
                f"people's dialogues hold {heard} that fit, and free talk needs {LEAST}",
                "write more references in the domain's file",
            )
            for intent, heard in self.short
        ]


def graph_text(task: Task, heard: Heard, flow: Flow, asking: Asking, cases: Cases) -> GraphText:
    """Return states, edges and intents."""
    return _Writer(task, heard, flow, asking, cases).write()


class _Writer:
    def __init__(self, task: Task, heard: Heard, flow: Flow, asking: Asking, cases: Cases) -> None:
        self.task = task
        self.heard = heard
        self.flow = flow
        self.asking = asking
        self.cases = cases
        self.text = GraphText()
        self.listener = Listener(heard, flow, self._said_first)

    def write(self) -> GraphText:
        for query, cases in self.flow.queries.items():
            self.text.states[query] = self._silent(query, cases)
        for state in self.flow.states:
            self.text.states[state] = self._spoken(state)
        for move in self.flow.moves:
            self.text.edges += self._edges(move)
        return self.text

    def _said_first(self, label: str) -> str:
        while label in self.flow.queries:
            label = self.flow.queries[label][0][1]
        return LEAVING if LEAVE.fullmatch(label) else label

    # -- the agent's side

    def _silent(self, query: str, cases: Sequence[tuple[str, str]]) -> Data:
        inputs = {snake(one): f"memory.{snake(one)}" for one in self.asking.parameters()}
        state: Data = {"call": {"tool": query, **inputs}}
        if self.flow.over:
            state["set"] = {STEP: 0}
        *first, (_, last) = cases
        state["next"] = [
            *({"when": f"result.{OUTCOME} == '{name}'", "to": to} for name, to in first),
            {"to": last},
        ]
        return state

    def _spoken(self, state: str) -> Data:
        fields = self.cases.fields.get(state, {})
        texts = [self._template(text, fields) for text in self.task.said[state]]
        told = dict.fromkeys(_expression(one) for one in fields.values())
        checks = [f"mentions({one})" for one in told]
        # No `not_boilerplate`: it refuses a recital, and what is told here is STAR's reply itself.
        checks += ["asks"] * ("?" in texts[0]) + ["similar(0.35)", f"max_words({_WORDS_AGENT})"]
        return {
            "say": f"Say this in your own words: {texts[0]}",
            "reference": texts,
            "checks": checks,
        }

    def _template(self, text: str, fields: Mapping[str, Field]) -> str:
        plain = " ".join(text.split())

        def hole(found: re.Match[str]) -> str:
            # A step is a sentence of its own, with or without its full stop.
            whole = " | sentence" if fields[found[1]].listed else ""
            return f"{{{{ {_expression(fields[found[1]])}{whole} }}}}"

        return PLACEHOLDER.sub(hole, plain)

    # -- the user's side

    def _edges(self, move: Move) -> Iterator[Data]:
        slots = self.asking.of(move.from_)
        if move.whole and not slots and self.asking.slots:
            yield self._whole(move)
        elif move.means == MISSING and slots:
            yield from self._missing(move, slots)
        elif move.means == "" and slots:
            yield from self._answers(move, slots)
        else:
            yield self._plain(move)

    def _answers(self, move: Move, slots: Sequence[Slot]) -> Iterator[Data]:
        slot = slots[0]
        if len(slots) == 1 and slot.choices:
            for value in slot.choices:
                yield self._choice(move, slot, value)
        else:
            intent = f"give_{'_and_'.join(one.name for one in slots)}"
            wording = self.listener.answer(move.from_, slots)
            yield self._telling(move, intent, "Say that", slots, wording)
        own = any(one.from_ == move.from_ and one.means == MISSING for one in self.flow.moves)
        if any(one.optional for one in slots) and not own:
            yield from self._missing(move, slots)

    def _whole(self, move: Move) -> Data:
        """Return the edge of a user who says at once what would be asked one by one."""
        wording = self.listener.whole(move.from_, self.asking.slots)
        say = "Ask for the next thing that you want, and say that" if move.again else _FIRST
        intent = "ask_again" if move.again else "ask"
        return self._telling(move, intent, say, self.asking.slots, wording)

    def _telling(
        self, move: Move, intent: str, say: str, slots: Sequence[Slot], wording: Wording
    ) -> Data:
        asked = _LATER if move.whole and move.again else _ASKED
        wish = " and ".join(f"the {one.label} is {{{{ slots.{one.name} }}}}" for one in slots)
        speech = {
            "slots": {one.name: {"type": "text", "value": f"{asked}.{one.name}"} for one in slots},
            **_speech(f"{say} {wish}.", wording),
        }
        # A value with choices is one that people put in words of their own.
        told = [f"mentions(slots.{one.name})" for one in slots if not one.choices]
        speech["checks"] = [*told, *speech["checks"]]
        guard = [f"{asked}.{one.name} != ''" for one in slots if one.optional]
        if asked == _LATER:
            guard.insert(0, _MORE)
        self._said_by(intent, wording)
        return self._edge(
            move, intent, speech, guard, {one.name: f"slots.{one.name}" for one in slots}
        )

    def _choice(self, move: Move, slot: Slot, value: str) -> Data:
        wording = self.listener.choice(move.from_, slot, value)
        intent = f"{slot.name}_{snake(value)}"
        self._said_by(intent, wording)
        speech = _speech(f"Answer about the {slot.label}: {value}.", wording)
        literal = f"'{value}'" if "'" not in value else f'"{value}"'
        return self._edge(
            move, intent, speech, [f"{_ASKED}.{slot.name} == {literal}"], {slot.name: literal}
        )

    def _missing(self, move: Move, slots: Sequence[Slot]) -> Iterator[Data]:
        for slot in slots:
            if slot.optional:
                wording = self.listener.nothing(move.from_, slot)
                intent = f"no_{slot.name}"
                self._said_by(intent, wording)
                speech = _speech(f"Say that you have no {slot.label} to tell.", wording)
                guard = [f"{_ASKED}.{slot.name} == ''"]
                yield self._edge(move, intent, speech, guard, {slot.name: "''"})

    def _plain(self, move: Move) -> Data:
        wording = self.listener.other(move)
        leaves = move.to in self.flow.end and not move.means
        opening = move.from_ == START
        intent = move.means or ("leave" if leaves else "open" if opening else "go_on")
        wish = {
            "yes": "Say yes to that.",
            "no": "Say no to that.",
            MISSING: "Say that you cannot tell that.",
            "leave": "Say that you need nothing else, and take your leave.",
            "open": "Say in general what you need help with.",
            "go_on": "Answer in a few words, so that it goes on.",
        }.get(intent, f"Answer in a way that means: {self.task.replies.get(intent, intent)}.")
        self._said_by(f"{intent} at {move.from_}", wording)
        return self._edge(move, intent, _speech(wish, wording), [], {})

    def _edge(
        self, move: Move, intent: str, speech: Data, guard: Sequence[str], sets: Mapping[str, str]
    ) -> Data:
        declared = self.text.intents.setdefault(intent, speech)
        edge: Data = {"from": move.from_, "intent": intent, "to": move.to}
        edge["weight"] = self._weight(move)
        if guard:
            edge["when"] = " and ".join(guard)
        assigned: Data = dict(sets)
        if move.again:
            assigned[REQUEST] = f"memory.{REQUEST} + 1"
        if move.again and not move.whole:
            if move.to in self.flow.queries:
                assigned |= self._taken_over()
            rest = MORE if MORE in self.flow.states else self.flow.end[0]
            more = f"memory.{REQUEST} < doc.requests | length"
            edge["to"] = [{"when": more, "to": move.to}, {"to": rest}]
        elif move.to in self.flow.over:
            assigned[STEP] = f"memory.{STEP} + 1"
            last = self.flow.over[move.to]
            edge["to"] = [
                {"when": f"memory.{STEP} < {self._list(move.to)} | length", "to": move.to},
                {"to": last},
            ]
        if assigned:
            edge["set"] = assigned
        if declared != speech:
            edge |= speech
        return edge

    def _weight(self, move: Move) -> int:
        """Return how often people went so, at least a quarter of the way they went most often."""
        beside = [one for one in self.flow.moves if one.from_ == move.from_]
        most = max(map(self._follows, beside))
        return max(1, most // 4, self._follows(move))

    def _follows(self, move: Move) -> int:
        """Return how often people went so; they begin with what they want where nobody greets."""
        to = self._said_first(move.to)
        unasked = self.heard.follows(BEGIN, to) if move.from_ == START else 0
        return unasked + self.heard.follows(move.from_, to)

    def _taken_over(self) -> Data:
        """Return the next request's values, where a query follows without a question."""
        return {
            slot.name: f"{_LATER}.{slot.name} if {_MORE} else memory.{slot.name}"
            for slot in self.asking.slots
        }

    def _list(self, state: str) -> str:
        listed = [one for one in self.cases.fields[state].values() if one.listed]
        return f"tools.{listed[0].query}.{listed[0].column}"

    def _said_by(self, intent: str, wording: Wording) -> None:
        if wording.heard < LEAST:
            self.text.short.append((intent, wording.heard))


def _speech(say: str, wording: Wording) -> Data:
    checks = ["not_boilerplate", f"max_words({_WORDS_USER})"]
    if not any("{{" in one for one in wording.texts):
        # Nothing else holds free words to the matter: a small model talks of salads.
        checks.append(f"similar({_LIKE_PEOPLE})")
    return {"say": say, "reference": list(wording.texts), "checks": checks}


def _expression(one: Field) -> str:
    if not one.query:
        return f"memory.{one.column}"
    whole = f"tools.{one.query}.{one.column}"
    return f"{whole}[memory.{STEP}]" if one.listed else whole
