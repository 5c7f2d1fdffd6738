"""The domain language as frozen data: what `specs.loader` reads and everything else works on.

Keys that are values are `Expression`, keys that are text are `Template`; both know where they
stand, so that a failure at run time still names file, line and column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Literal

from specs.errors import Where
from specs.expressions import Expression, Template

SlotType = Literal["text", "integer", "number", "boolean", "id", "list"]
Side = Literal["user", "agent"]
SIDES: Final[tuple[Side, ...]] = ("user", "agent")

Json = Any
"""What JSON can hold; documents, results and memory are made of it."""

Assignments = Mapping[str, Expression]

MAX_TURNS = 1_000
"""No person talks longer; a loop that hardly ever ends stops there instead of never."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A typed variable of a dialogue's memory, set at its start to `init` or to a value drawn.

    Attributes:
        draw: values with their probabilities, as pairs because a value may be unhashable.
    """

    name: str
    type: SlotType
    where: Where
    of: SlotType = "text"
    init: Json = None
    draw: tuple[tuple[Json, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """Something an utterance carries: settled before the words (`value`) or written by the model.

    Attributes:
        one_of: the values it may take; empty where any value of the type will do.
        value: settles the slot; None where the model writes it.
        reference: what the slot holds when a person's reference speaks in the model's place.
    """

    name: str
    type: SlotType
    where: Where
    of: SlotType = "text"
    one_of: tuple[Json, ...] = ()
    value: Expression | None = None
    reference: Expression | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A few-shot pair: in the scope `with_`, the instruction reads so and the role says `say`."""

    with_: Mapping[str, Json]
    say: Template
    slots: Mapping[str, Json]
    where: Where


@dataclass(frozen=True, slots=True)
class Reference:
    """An utterance that a person wrote; `slots` override what the slots' own `reference` gives."""

    say: Template
    slots: Assignments
    where: Where


@dataclass(frozen=True, slots=True)
class CheckCall:
    """A check and its arguments, such as `mentions(slots.query)` or `max_words(30)`."""

    name: str
    arguments: tuple[Expression, ...]
    source: str
    where: Where


@dataclass(frozen=True, slots=True)
class Speech:
    """What is said at an edge or a state, and how it is judged.

    Attributes:
        say: the instruction to the model; None where nothing is said (a silent state).
        slots: an intent's slots, or a state's `reply`, by name.
    """

    say: Template | None = None
    slots: Mapping[str, Slot] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    references: tuple[Reference, ...] = ()
    checks: tuple[CheckCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """What the user wants with an utterance; `echo` and `ahead` are those of its edges."""

    name: str
    description: str
    speech: Speech
    where: Where
    echo: Expression | None = None
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """`to` is taken when `when` holds; a case without `when` always holds."""

    to: str
    when: Expression | None
    where: Where


@dataclass(frozen=True, slots=True)
class Plant:
    """Where the wanted document stands in the results: on `page`, and nowhere when not `when`."""

    id: Expression
    page: Expression | None
    when: Expression | None


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of a state; `arguments` are the tool's inputs, `plant` is for `search` alone."""

    tool: str
    arguments: Assignments
    plant: Plant | None
    where: Where


@dataclass(frozen=True, slots=True)
class State:
    """What the agent does: call, set, move on (`next`), or speak.

    A state whose `speech.say` is None is silent: one of its `next` cases must hold. A state that
    speaks may have `next` cases too; it speaks only when none of them holds.
    """

    name: str
    description: str
    call: Call | None
    set: Assignments
    next: tuple[Case, ...]
    speech: Speech
    digression: bool
    where: Where


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge as it applies to one state (a group in `from` has become one edge a state).

    Attributes:
        number: its place in `Domain.edges`, unique.
        intent: None where the edge brings its own speech and no name.
        speech: the intent's speech, with what the edge itself brings in its place.
        revises: the user takes back with it what they chose before.
        echo: how the agent says it back in short ("the stew"), a constant; None where it is never
            misheard.
        ahead: it may be said together with what leads to where it starts, before it is asked for.
    """

    number: int
    from_: str
    intent: str | None
    to: tuple[Case, ...]
    weight: float
    when: Expression | None
    set: Assignments
    speech: Speech
    where: Where
    revises: bool = False
    echo: Expression | None = None
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A possible result of a tool; its strings are templates over `input` and the scope."""

    p: float
    result: Json


@dataclass(frozen=True, slots=True)
class Table:
    """A tool that looks its result up: the first row whose `match` columns equal the inputs."""

    rows: tuple[Mapping[str, Json], ...]
    match: tuple[str, ...]
    otherwise: Json


@dataclass(frozen=True, slots=True)
class Tool:
    """A declared tool. Without outcomes and table it must be registered by an entry point."""

    name: str
    description: str
    input: Mapping[str, SlotType]
    outcomes: tuple[Outcome, ...]
    table: Table | None
    where: Where


@dataclass(frozen=True, slots=True)
class Goal:
    """What the user is after; `with_` sets memory variables at the dialogue's start."""

    text: Template
    with_: Mapping[str, Json]
    where: Where


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a user may have wrong, and how the agent sets it right (`specs.facts`).

    Attributes:
        number: its place in the domain.
        when: asked before it comes up; None where it always may.
        right: what is so.
        wrong: what it may be taken for, a list.
        claim: how the user says it wrongly; its slot `wrong` is drawn from those.
        answer: how the agent sets it right and comes back to the point; its reply has `right`.
    """

    number: int
    when: Expression | None
    right: Expression
    wrong: Expression
    claim: Speech
    answer: Speech
    where: Where


@dataclass(frozen=True, slots=True)
class RoleCard:
    """How one side is introduced: the name it has in scripts and its system message.

    Attributes:
        speech: how it speaks where no edge and no state says so: the user who talks freely, and the
            agent where no edge took what was said. A domain that was read has a `say` here.
    """

    name: str
    system: Template
    speech: Speech = field(default_factory=Speech)


@dataclass(frozen=True, slots=True)
class Document:
    """One document of the corpus; `line` says where in its file it stands.

    Attributes:
        scope: the document as expressions see it, its id a string under `id`; one for all walks.
    """

    id: str
    fields: Mapping[str, Json]
    embed: str
    line: int
    scope: Mapping[str, Json] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make the scope once."""
        object.__setattr__(self, "scope", {**self.fields, "id": self.id})


@dataclass(frozen=True, slots=True)
class Persona:
    """Who the user is."""

    id: str
    name: str
    text: str
    traits: tuple[str, ...] = ()


Draws = tuple[Sequence[Edge], Sequence[float]]
"""Edges, and the running sums of their weights."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A checked domain. `digest` covers every byte that decides what may be said.

    Attributes:
        closing: what either side says when it takes its leave; whoever talks freely is over with it
            then.
        forbidden_traits: what no user of this domain may be like (`specs.traits`).
        trait_speeches: what each trait is told and how it speaks, by its name.
        facts: what a user may have wrong.
        mishearing: how the agent says back what it has misheard (`specs.mishearing`).
        scopes: the documents as expressions see them, by id.
    """

    name: str
    description: str
    folder: Path
    digest: str
    open: Side
    documents: tuple[Document, ...]
    personas: tuple[Persona, ...]
    memory: Mapping[str, Variable]
    goals: tuple[Goal, ...]
    user: RoleCard
    agent: RoleCard
    tools: Mapping[str, Tool]
    intents: Mapping[str, Intent]
    states: Mapping[str, State]
    edges: tuple[Edge, ...]
    start: str
    end: frozenset[str]
    subgoals: tuple[str, ...]
    max_turns: int
    closing: tuple[str, ...] = ()
    forbidden_traits: frozenset[str] = frozenset()
    trait_speeches: Mapping[str, Speech] = field(default_factory=dict)
    facts: tuple[Fact, ...] = ()
    mishearing: Speech = field(default_factory=Speech)
    corpus_path: Path | None = None
    scopes: Mapping[str, Mapping[str, Json]] = field(init=False, repr=False, compare=False)
    _by_id: dict[str, Document] = field(init=False, repr=False, compare=False)
    _leaving: dict[str, tuple[Edge, ...]] = field(init=False, repr=False, compare=False)
    _draws: dict[str, Draws] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index documents and edges once; a walk asks for both at every turn."""
        leaving: dict[str, list[Edge]] = {}
        for edge in self.edges:
            leaving.setdefault(edge.from_, []).append(edge)
        object.__setattr__(self, "_by_id", {document.id: document for document in self.documents})
        object.__setattr__(self, "scopes", {one.id: one.scope for one in self.documents})
        object.__setattr__(self, "_leaving", {name: tuple(es) for name, es in leaving.items()})
        weighed = {name: [e for e in es if e.weight > 0] for name, es in leaving.items()}
        draws = {name: (es, list(accumulate(e.weight for e in es))) for name, es in weighed.items()}
        object.__setattr__(self, "_draws", draws)

    def edges_from(self, state: str) -> tuple[Edge, ...]:
        """Return the edges that leave a state, in the order of the file."""
        return self._leaving.get(state, ())

    def draws_from(self, state: str) -> Draws:
        """Return the edges that may be drawn in a state, and the running sums of their weights."""
        return self._draws.get(state, ((), ()))

    def document(self, id_: str) -> Document:
        """Return the document of that id; KeyError when there is none."""
        return self._by_id[id_]
