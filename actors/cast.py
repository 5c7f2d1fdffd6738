"""Who plays a run's dialogues: the domain, both sides' models, and what all dialogues share.

Invariants: a cast is made once for many dialogues and changes none of them: what it keeps is made
from the domain alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from actors.manager import Manager
from actors.prompts import Shot, render_shots
from actors.seat import Seat
from actors.spoken import Spoken
from specs.agent_chat import agent_card, system_message
from specs.agent_format import ChatMessage
from specs.checks import common_of, literals, phrases_of
from specs.domain import Domain, Edge, Fact, RoleCard, Side, Speech
from specs.expressions import Template
from specs.joining import joined
from specs.plan import PlanSource
from specs.records import dump_json
from specs.scene import Calling, CallResult, Scene
from specs.words import Vocabulary, holds, words

if TYPE_CHECKING:
    from actors.conversation import Conversation

POINT = re.compile(r"\{\{\s*point\s*\}\}")
"""Where the agent's card says what its state asks it to say."""

FORM = frozenset({"not_boilerplate", "max_words", "min_words"})
"""Checks of how something is said, whatever it is."""

GO_ON = "Say what comes next in this conversation."


class Caller(Protocol):
    """Answers a scene's calls: the search and the domain's tools."""

    async def call(self, calling: Calling, scene: Scene) -> CallResult:
        """Return what the call brings; raises RetrievalError when the store is out of reach."""

    async def similarity(self, text: str, references: Sequence[str]) -> float:
        """Return the cosine of a text with the nearest reference."""


class Person(Protocol):
    """Somebody who takes a side in a model's place (`cluster.play`)."""

    async def choose_edge(self, conversation: Conversation, edges: Sequence[Edge]) -> Edge:
        """Return which of the open edges the user takes; asked of the user's side alone."""

    async def speak(self, conversation: Conversation, side: Side, speech: Speech) -> Spoken:
        """Return what the side says."""


@dataclass(slots=True)
class Cast:
    """What all conversations of a walker share.

    Attributes:
        now: the clock; injected so that records can be tested.
        people: the sides that no model plays.
        manager: finds the edges of free talk, and watches hybrid walks; None in others.
        structured: the agent is told what to say next in free talk, not the whole workflow.
        patience: how often in a row the agent comes back to one point.
        closing: the words of what is said to take leave.
        brief: what an agent that was trained is told first; None where it is none.
    """

    domain: Domain
    source: PlanSource
    run: str
    seats: Mapping[Side, Seat]
    caller: Caller
    max_turns: int
    node: str = ""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    people: Mapping[Side, Person] = field(default_factory=dict)
    manager: Manager | None = None
    structured: bool = True
    patience: int = 3
    closing: tuple[tuple[str, ...], ...] = field(init=False)
    phrases: Vocabulary = field(init=False)
    common: Vocabulary = field(init=False)
    brief: ChatMessage | None = field(init=False)
    _shots: dict[tuple[int, int, int], tuple[Shot, ...]] = field(default_factory=dict)
    _literals: dict[int, list[str]] = field(default_factory=dict)
    _returns: dict[tuple[str, int | None], Speech] = field(default_factory=dict)
    _both: dict[tuple[int, int], Speech] = field(default_factory=dict)
    _unsteered: dict[str, Speech] = field(default_factory=dict)
    _documents: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Gather the domain's words once."""
        self.phrases = phrases_of(self.domain)
        self.common = common_of(self.domain)
        self.closing = tuple(words(phrase) for phrase in self.domain.closing)
        self.brief = None
        if (agent := self.seats.get("agent")) is not None and agent.adapter:
            self.brief = ChatMessage("system", system_message(agent_card(self.domain)))

    @property
    def cards(self) -> dict[Side, RoleCard]:
        """Both sides' cards."""
        return {"user": self.domain.user, "agent": self.domain.agent}

    def shots(self, side: Side, speech: Speech) -> tuple[Shot, ...]:
        """Return a speech's examples as the side's model sees them, rendered once."""
        count = self.seats[side].profile.examples
        # Speeches are made anew where words stand in from elsewhere, with the same examples.
        key = (id(speech.examples), id(speech.say), count)
        if key not in self._shots:
            self._shots[key] = render_shots(speech, count)
        return self._shots[key]

    def closes(self, said: str) -> bool:
        """Whether words hold one of the domain's phrases of leave-taking."""
        return holds(said, self.closing)

    def literals(self, speech: Speech) -> list[str]:
        """Return a speech's references without what their templates fill in, found once."""
        if id(speech) not in self._literals:
            self._literals[id(speech)] = literals(speech)
        return self._literals[id(speech)]

    def coming_back(self, state: str, fact: Fact | None = None) -> Speech:
        """Return what the agent is told in a state when no edge took what the user said.

        Args:
            fact: what the user had wrong.
        """
        key = (state, None if fact is None else fact.number)
        if key not in self._returns:
            card = self.domain.agent.speech if fact is None else fact.answer
            there = self.domain.states[state].speech
            assert card.say is not None
            point = there.say.source.strip() if there.say is not None else ""
            told, named = POINT.subn(lambda _: point, card.say.source.strip())
            say = Template(told if named else f"{told} {point}", card.say.where)
            references = card.references or there.references
            self._returns[key] = replace(card, say=say, references=references)
            # The examples bring a point of their own; this one's template may need a document.
            count = self.seats["agent"].profile.examples
            self._shots[id(card.examples), id(say), count] = render_shots(card, count)
        return self._returns[key]

    def both(self, edge: Edge, then: Edge) -> Speech:
        """Return how the user says two edges at once."""
        key = (edge.number, then.number)
        if key not in self._both:  # kept, since shots and literals are known by identity
            self._both[key] = joined(edge.speech, then.speech)
        return self._both[key]

    def unsteered(self, state: str) -> Speech:
        """Return what the agent is told in a state when it has to know what comes next.

        Its words are held to their form alone: what they have to say is what is measured.
        """
        if state not in self._unsteered:
            there, where = self.domain.states[state].speech, self.domain.states[state].where
            checks = tuple(check for check in there.checks if check.name in FORM)
            say = Template(GO_ON, where)
            self._unsteered[state] = replace(there, say=say, examples=(), checks=checks)
        return self._unsteered[state]

    def document(self, id_: str) -> str:
        """Return a document's fields as JSON, written once: one text for all its dialogues."""
        if id_ not in self._documents:
            self._documents[id_] = dump_json(self.domain.document(id_).fields)
        return self._documents[id_]
