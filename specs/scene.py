"""One dialogue's place on the graph: a state machine that does no input or output.

Order within a turn pair (DESIGN.md section 3): an edge is chosen among those whose guards hold;
the user speaks; the edge's `set`; its `to`; the state's `call`, its `set`, its `next`; then the
agent speaks. Every draw has a generator of its own, derived from the dialogue's identity, the turn
and the draw's name, so a scene that is played again with the same words takes the same path.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from specs.domain import (
    Assignments,
    Call,
    Case,
    Domain,
    Edge,
    Reference,
    Side,
    Slot,
    SlotType,
    Speech,
)
from specs.errors import DuologueError, ExpressionError
from specs.expressions import Expression
from specs.frames import DOCUMENTS
from specs.plan import Plan, document_scope, persona_scope
from specs.records import PathStep, StopReason
from specs.seeds import later, shuffled, uniform
from specs.values import LARGEST, oversized, typed

MOVES = 50
"""Silent moves in a row after which a `next` loop is taken for endless."""


_NOTHING: Mapping[str, Any] = {}
"""The slots of a speech without slots: one object, for all turns."""


class SceneError(DuologueError):
    """A domain that cannot go on: no case holds, an endless `next`, a value of the wrong type."""


@dataclass(frozen=True, slots=True)
class Planting:
    """Where the wanted document stands in the results: on `page`, or nowhere when `hidden`."""

    id: str
    page: int
    hidden: bool


@dataclass(frozen=True, slots=True)
class Calling:
    """A tool call, its arguments evaluated.

    Attributes:
        draws: what the tool's own draws derive from: the same all through a dialogue for `search`,
            so that its pages fit together; another for every other call.
    """

    state: str
    tool: str
    arguments: Mapping[str, Any]
    planting: Planting | None
    draws: str


@dataclass(frozen=True, slots=True)
class CallResult:
    """What a call brought: documents with scores (`search`), or the tool's value."""

    ids: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    value: Any = None


Moves = Generator[Calling, CallResult, None]
"""Yields the calls of the states entered, is sent their results, returns where the agent speaks."""


class Scene:
    """A dialogue's place, memory and results.

    Attributes:
        node: the state whose edges apply.
        speaking: the state in which the agent speaks; differs from `node` in a digression.
        turn: the index of the turn to come.
        slots, reply: of the user's and the agent's current turn.
        calls: with their results, since the user last spoke.
    """

    def __init__(self, domain: Domain, plan: Plan) -> None:
        self.domain = domain
        self.plan = plan
        self.node = domain.start
        self.speaking = domain.start
        self.turn = 0
        self.heard = ""
        self.memory: Mapping[str, Any] = plan.memory
        self.slots: Mapping[str, Any] = {}
        self.reply: Mapping[str, Any] = {}
        self.results: list[Mapping[str, Any]] = []
        self.tools: dict[str, Any] = {}
        self.result: Any = None
        self.path: list[PathStep] = []
        self.reached: list[str] = []
        self.calls: list[tuple[Calling, CallResult]] = []
        self._persona = persona_scope(plan.persona)
        self._document = None if plan.document is None else document_scope(plan.document)
        self._kept: Mapping[str, Any] = {}

    @property
    def ended(self) -> bool:
        """Whether the agent has arrived in an end state."""
        return self.speaking in self.domain.end

    def require_goal(self) -> None:
        """Refuse to play without the goal that the plan could not make (`Plan.error`).

        Raises:
            SceneError: saying why there is none.
        """
        if self.plan.error:
            raise SceneError(self.plan.error)

    def scope(self) -> dict[str, Any]:
        """Return the names that expressions and templates see now."""
        names: dict[str, Any] = {
            "persona": self._persona,
            "goal": self.plan.goal,
            "memory": self.memory,
            "slots": self.slots,
            "reply": self.reply,
            "results": self.results,
            "tools": self.tools,
            "heard": self.heard,
            "turn": self.turn,
        }
        if self.tools:  # a call was made, whatever it brought
            names["result"] = self.result
        if self._document is not None:
            names["doc"] = self._document
            names[DOCUMENTS] = self.domain.scopes
        return names

    def draws(self, *name: object) -> random.Random:
        """Return this turn's generator for the draw of that name."""
        return later(self.plan.walk_id, self.turn, *name)

    # -- the user's side

    def open_edges(self) -> list[Edge]:
        """Return the edges of the current node whose guards hold and that may be drawn."""
        return self._open(self.domain.draws_from(self.node)[0])

    def routable_edges(self) -> list[Edge]:
        """Return all edges of the current node whose guards hold, whatever their weight."""
        return self._open(self.domain.edges_from(self.node))

    def _open(self, leaving: Sequence[Edge]) -> list[Edge]:
        scope = self.scope()
        held: dict[str, bool] = {}  # many edges of a node have one guard
        edges = []
        for edge in leaving:
            if edge.when is not None:
                source = edge.when.source
                if source not in held:
                    held[source] = self._holds(edge.when, scope)
                if not held[source]:
                    continue
            edges.append(edge)
        return edges

    def draw_edge(self) -> Edge | None:
        """Draw an edge by weight among those whose guards hold; None when no guard holds.

        One is drawn from all of them, and where its guard does not hold, another from the rest:
        the first in a weighted random order that is open is any of the open ones with the chance
        of its weight, and most guards need not be asked.
        """
        edges, ends = self.domain.draws_from(self.node)
        scope = self.scope()
        attempt = 0
        while edges:
            point = uniform(self.plan.walk_id, self.turn, "edge", attempt) * ends[-1]
            edge = edges[min(bisect_right(ends, point), len(edges) - 1)]
            if edge.when is None or edge.when.evaluate(scope):
                return edge
            shut = edge.when.source
            edges = [one for one in edges if one.when is None or one.when.source != shut]
            ends = list(accumulate(one.weight for one in edges))
            attempt += 1
        return None

    def settle(self, speech: Speech, side: Side) -> Mapping[str, Any]:
        """Return the slots (agent: the reply) that have a `value`, each with a draw of its own."""
        if not speech.slots:
            return _NOTHING
        scope = self.scope()
        settled: dict[str, Any] = {}
        scope["slots" if side == "user" else "reply"] = settled
        for slot in speech.slots.values():
            if slot.value is not None:
                value = slot.value.evaluate(scope, self.draws("slot", slot.name))
                settled[slot.name] = coerce(slot, value)
        return settled

    def voiced(self, speech: Speech, side: Side) -> tuple[Reference | None, Mapping[str, Any]]:
        """Draw the reference that a walk without words is taken by, and return its slots.

        Raises:
            ExpressionError, SceneError: when no reference suits the document.
        """
        settled = self.settle(speech, side)
        problem: DuologueError | None = None
        for reference in shuffled(speech.references, self.plan.walk_id, self.turn, "voiced"):
            try:
                return reference, self.reference_slots(speech, side, reference, settled)
            except (ExpressionError, SceneError) as error:
                problem = problem or error
        if problem is not None:
            raise problem
        return None, self.reference_slots(speech, side, None, settled)

    def reference_slots(
        self, speech: Speech, side: Side, reference: Reference | None, settled: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return all slots as they are when a reference speaks, or nobody (None)."""
        if len(settled) == len(speech.slots):
            return settled
        scope = self.scope()
        slots = dict(settled)
        scope["slots" if side == "user" else "reply"] = slots
        for slot in speech.slots.values():
            if slot.name in slots:
                continue
            given = reference.slots.get(slot.name) if reference is not None else None
            source = given or slot.reference
            if source is not None:
                value = source.evaluate(scope, self.draws("reference slot", slot.name))
                slots[slot.name] = coerce(slot, value)
        return slots

    def take(self, edge: Edge, slots: Mapping[str, Any]) -> Moves:
        """Take an edge with the slots that were said, and move to where the agent speaks."""
        self.slots = slots
        self.calls = []
        self._assign(edge.set)
        target = self._case(edge.to, f"the edge from {edge.from_!r} ({edge.where})")
        self.path.append(PathStep(self.node, edge.intent or "", target))
        yield from self._enter(target)

    # -- the agent's side

    def come_back(self) -> None:
        """Let the agent speak where the dialogue is: no edge took what the user said."""
        self.calls = []
        self.speaking = self.node

    def begin(self) -> Moves:
        """Enter the start state, where the agent opens."""
        self.calls = []
        yield from self._enter(self.domain.start)

    def _enter(self, name: str) -> Moves:
        for _ in range(MOVES):
            state = self.domain.states[name]
            if name in self.domain.subgoals and name not in self.reached:
                self.reached.append(name)
            if state.call is not None:
                calling = self._calling(name, state.call)
                self._received(calling, (yield calling))
            self._assign(state.set)
            moved = self._first(state.next)
            if moved is None:
                break
            self.path.append(PathStep(name, "", moved))
            name = moved
        else:
            raise SceneError(f"{state.where}: {MOVES} silent moves in a row: `next` never ends")
        if state.speech.say is None:
            raise SceneError(f"{state.where}: the silent state {name!r} has no case that holds")
        self.speaking = name
        if not state.digression:
            self.node = name

    def _calling(self, state: str, call: Call) -> Calling:
        scope = self.scope()
        arguments = {
            name: expression.evaluate(scope, self.draws("call", name))
            for name, expression in call.arguments.items()
        }
        planting = None
        if call.plant is not None:
            page = call.plant.page.evaluate(scope) if call.plant.page is not None else 0
            page = _typed("integer", page, f"{call.where}: plant.page")
            hidden = not self._holds(call.plant.when, scope)
            planting = Planting(str(call.plant.id.evaluate(scope)), page or 0, hidden)
        number = "search" if call.tool == "search" else f"{self.turn}.{len(self.calls)}"
        return Calling(state, call.tool, arguments, planting, f"{self.plan.walk_id}:{number}")

    def _received(self, calling: Calling, result: CallResult) -> None:
        self.calls.append((calling, result))
        if calling.tool == "search":
            self.results = [document_scope(self.domain.document(id_)) for id_ in result.ids]
            self.result = self.results
        else:
            self.result = result.value
        self.tools = {**self.tools, calling.tool: self.result}

    def replied(self, reply: Mapping[str, Any]) -> None:
        """Keep the agent's reply; after a digression it is the interrupted state's again."""
        if not self.domain.states[self.speaking].digression:
            self._kept = reply
        self.reply = self._kept

    # -- values

    def _holds(self, when: Expression | None, scope: Mapping[str, Any]) -> bool:
        return when is None or bool(when.evaluate(scope))

    def _first(self, cases: Sequence[Case]) -> str | None:
        scope = self.scope() if cases else {}
        return next((case.to for case in cases if self._holds(case.when, scope)), None)

    def _case(self, cases: Sequence[Case], what: str) -> str:
        to = self._first(cases)
        if to is None:
            raise SceneError(f"{what}: no case of `to` holds")
        return to

    def _assign(self, assignments: Assignments) -> None:
        if not assignments:
            return
        scope = self.scope()
        values = {}
        for name, expression in assignments.items():
            value = expression.evaluate(scope, self.draws("set", name))
            values[name] = _typed(self.domain.memory[name].type, value, f"memory.{name}")
            if oversized(values[name]):  # such as a list that is set to itself twice, each turn
                raise SceneError(f"memory.{name} has grown to more than {LARGEST:,} items")
        if any(self.memory[name] != value for name, value in values.items()):
            self.memory = {**self.memory, **values}  # turns in between share one


def coerce(slot: Slot, value: Any) -> Any:
    """Return a slot's value in its type.

    Raises:
        SceneError: when it is of another type or not one of those that the slot may take.
    """
    value = _typed(slot.type, value, f"slot {slot.name!r}")
    if slot.type == "list" and value is not None:
        value = [_typed(slot.of, item, f"slot {slot.name!r}") for item in value]
    if slot.one_of and value not in slot.one_of:
        raise SceneError(f"{slot.where}: slot {slot.name!r} is {value!r}, not one of {slot.one_of}")
    return value


def _typed(kind: SlotType, value: Any, what: str) -> Any:
    try:
        return typed(kind, value)
    except (TypeError, ValueError, OverflowError):
        raise SceneError(f"{what} is of type {kind}, and {value!r} is none") from None


def drive(moves: Moves, answer: Callable[[Calling], CallResult]) -> None:
    """Run moves to their end, each call answered at once."""
    try:
        calling = next(moves)
        while True:
            calling = moves.send(answer(calling))
    except StopIteration:
        pass


@dataclass(frozen=True, slots=True)
class Walked:
    """A walk sampled without words."""

    path: tuple[PathStep, ...]
    turns: int
    stop_reason: StopReason
    reached: tuple[str, ...]
    error: str = ""


Answering = Callable[[Calling, Mapping[str, Any]], CallResult]
"""Answers a call at once, given the scene's scope: the tools of a sampled walk."""


def sample_walk(domain: Domain, plan: Plan, answer: Answering) -> Walked:
    """Walk a plan without words: slots are what a reference would say.

    Args:
        answer: the tools, without a model (`actors.retrieval.sampled`).
    """
    scene = Scene(domain, plan)
    try:
        stop = _walk(scene, answer)
        error = ""
    except DuologueError as problem:
        stop, error = StopReason.ERROR, str(problem)
    return Walked(tuple(scene.path), scene.turn, stop, tuple(scene.reached), error)


def _walk(scene: Scene, tools: Answering) -> StopReason:
    def answer(calling: Calling) -> CallResult:
        return tools(calling, scene.scope())

    scene.require_goal()
    if scene.domain.open == "agent":
        drive(scene.begin(), answer)
        _reply(scene)
    while not scene.ended:
        if scene.turn + 2 > scene.domain.max_turns:
            return StopReason.TURN_LIMIT
        scene.open_edges()  # asks every guard, so that one that fails or never holds is found
        edge = scene.draw_edge()
        if edge is None:
            return StopReason.NO_EDGE
        slots = scene.voiced(edge.speech, "user")[1]
        scene.turn += 1
        drive(scene.take(edge, slots), answer)
        _reply(scene)
    return StopReason.ENDED


def _reply(scene: Scene) -> None:
    """Let the agent speak without words: guards may ask for what a reference's reply holds."""
    speech = scene.domain.states[scene.speaking].speech
    scene.replied(scene.voiced(speech, "agent")[1])
    scene.turn += 1
