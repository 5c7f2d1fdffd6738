"""One dialogue, played by two seats along a scene: one coroutine, from its plan to its record.

Invariants: nothing here is drawn from a shared generator, so a dialogue depends on its plan and on
the models alone; a turn is handed to `on_turn` before the next begins; turns given as `logged` are
taken as they were said, with the results that they had, and the dialogue goes on behind them. What
the dialogue does wrong by itself is its `StopReason`; what its surroundings do wrong is raised as
`Unavailable` and leaves no record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from actors.prompts import Line, Shot, render_shots
from actors.seat import Seat
from actors.speaking import Spoken, Stopped, speak
from specs.checks import common_of, literals, phrases_of
from specs.domain import Domain, Edge, RoleCard, Side, Speech
from specs.errors import DuologueError, EngineError, Unavailable
from specs.plan import Plan, PlanSource
from specs.records import Dialogue, StopReason, Turn, dump_json
from specs.replay import recorded_results
from specs.scene import Calling, CallResult, Moves, Scene
from specs.words import Vocabulary, words


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
    phrases: Vocabulary = field(init=False)
    common: Vocabulary = field(init=False)
    _shots: dict[tuple[int, int], tuple[Shot, ...]] = field(default_factory=dict)
    _literals: dict[int, list[str]] = field(default_factory=dict)
    _documents: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Gather the domain's words once."""
        self.phrases = phrases_of(self.domain)
        self.common = common_of(self.domain)

    @property
    def cards(self) -> dict[Side, RoleCard]:
        """Both sides' cards."""
        return {"user": self.domain.user, "agent": self.domain.agent}

    def shots(self, side: Side, speech: Speech) -> tuple[Shot, ...]:
        """Return a speech's examples as the side's model sees them, rendered once."""
        count = self.seats[side].profile.examples
        key = (id(speech), count)
        if key not in self._shots:
            self._shots[key] = render_shots(speech, count)
        return self._shots[key]

    def literals(self, speech: Speech) -> list[str]:
        """Return a speech's references without what their templates fill in, found once."""
        if id(speech) not in self._literals:
            self._literals[id(speech)] = literals(speech)
        return self._literals[id(speech)]

    def document(self, id_: str) -> str:
        """Return a document's fields as JSON, written once: one text for all its dialogues."""
        if id_ not in self._documents:
            self._documents[id_] = dump_json(self.domain.document(id_).fields)
        return self._documents[id_]


OnTurn = Callable[[Turn], Awaitable[None]]


async def _nobody(turn: Turn) -> None:
    """Take no notice of a turn."""


class Conversation:
    """One dialogue in progress."""

    def __init__(
        self,
        cast: Cast,
        plan: Plan,
        attempt: int = 0,
        logged: Sequence[Turn] = (),
        on_turn: OnTurn = _nobody,
    ) -> None:
        self.cast = cast
        self.plan = plan
        self.scene = Scene(cast.domain, plan)
        self.turns: list[Turn] = []
        self.said_by: dict[Side, list[tuple[str, ...]]] = {"user": [], "agent": []}
        self.systems: dict[Side, str] = {}
        self._attempt = attempt
        self._logged = {turn.index: turn for turn in logged}
        self._on_turn = on_turn
        self._started = cast.now()

    async def play(self) -> Dialogue:
        """Play to the end, and return the record.

        Raises:
            Unavailable: when an engine or the store stays out of reach.
        """
        error = ""
        try:
            reason = await self._play()
        except Stopped as stopped:
            reason, error = stopped.reason, str(stopped)
        except (Unavailable, EngineError):
            raise
        except DuologueError as problem:
            reason, error = StopReason.ERROR, str(problem)
        finally:
            for seat in self.cast.seats.values():
                seat.client.release(self.plan.walk_id)
        progress = Progress(self.scene, self.turns, self._attempt, self._started)
        return make_record(self.cast, self.plan, progress, reason, error)

    async def _play(self) -> StopReason:
        scene = self.scene
        scene.require_goal()
        for side in self.cast.cards:
            self.system(side)  # before the first turn, so that a resumed dialogue has the same
        if self.cast.domain.open == "agent":
            await self._agent_turn(scene.begin())
        while not scene.ended:
            if scene.turn + 2 > self.cast.max_turns:
                return StopReason.TURN_LIMIT
            edge = await self._edge()
            if edge is None:
                return StopReason.NO_EDGE
            await self._user_turn(edge)
            await self._agent_turn(scene.take(edge, scene.slots))
        return StopReason.ENDED

    async def _edge(self) -> Edge | None:
        logged = self._logged.get(self.scene.turn)
        if logged is not None:  # it was taken, however edges are drawn now
            return self.cast.domain.edges[logged.edge]
        person = self.cast.people.get("user")
        if person is None:
            return self.scene.draw_edge()
        edges = self.scene.open_edges()
        return await person.choose_edge(self, edges) if edges else None

    async def _user_turn(self, edge: Edge) -> None:
        scene = self.scene
        logged = self._logged.get(scene.turn)
        spoken = await self._spoken("user", edge.speech, logged)
        scene.slots = spoken.slots
        turn = logged or Turn(
            index=scene.turn,
            role="user",
            text=spoken.text,
            state=scene.node,
            intent=edge.intent or "",
            edge=edge.number,
            slots=spoken.slots,
            memory=scene.memory,
            **spoken.record,
        )
        await self._said(turn, new=logged is None)

    async def _agent_turn(self, moves: Moves) -> None:
        scene = self.scene
        logged = self._logged.get(scene.turn)
        recorded = recorded_results(logged) if logged else []
        await self._move(moves, recorded)
        speech = self.cast.domain.states[scene.speaking].speech
        spoken = await self._spoken("agent", speech, logged)
        scene.replied(spoken.slots)
        turn = logged or self._agent_record(spoken)
        await self._said(turn, new=logged is None)

    async def _spoken(self, side: Side, speech: Speech, logged: Turn | None) -> Spoken:
        if logged:
            return _as_spoken(logged)
        person = self.cast.people.get(side)
        return await (person.speak(self, side, speech) if person else speak(self, side, speech))

    def _agent_record(self, spoken: Spoken) -> Turn:
        scene = self.scene
        return Turn(
            index=scene.turn,
            role="agent",
            text=spoken.text,
            state=scene.speaking,
            reply=spoken.slots,
            memory=scene.memory,
            **call_fields(scene),
            **spoken.record,
        )

    async def _move(self, moves: Moves, recorded: list[CallResult]) -> None:
        try:
            calling = next(moves)
            while True:
                if recorded:
                    result = recorded.pop(0)
                else:
                    result = await self.cast.caller.call(calling, self.scene)
                calling = moves.send(result)
        except StopIteration:
            return

    async def _said(self, turn: Turn, new: bool) -> None:
        self.turns.append(turn)
        self.said_by[turn.role].append(words(turn.text))
        self.scene.heard = turn.text
        self.scene.turn += 1
        if new:
            await self._on_turn(turn)

    # -- what speaking needs to know

    def system(self, side: Side) -> str:
        """Return the side's system message, rendered once a dialogue."""
        if side not in self.systems:
            card = self.cast.cards[side]
            scope = self.scene.scope()
            self.systems[side] = card.system.render(scope, self.scene.draws("system", side))
        return self.systems[side]

    def history(self, last: int) -> list[Line]:
        """Return what was said in the last so many turns."""
        return [Line(turn.role, turn.text) for turn in self.turns[-last:]] if last else []


def _as_spoken(turn: Turn) -> Spoken:
    return Spoken(turn.text, turn.slots if turn.role == "user" else turn.reply, {})


def call_fields(scene: Scene) -> dict[str, Any]:
    """Return what an agent's turn records of the calls before it (see `recorded_results`)."""
    if not scene.calls:
        return {}
    calling, result = scene.calls[-1]
    fields: dict[str, Any] = {
        "call": {"tool": calling.tool, "arguments": calling.arguments},
        "result_ids": result.ids,
        "result_scores": result.scores,
        "result": result.value,
    }
    if len(scene.calls) > 1:
        fields["routing"] = {"calls": [_call_record(*pair) for pair in scene.calls]}
    return fields


def _call_record(calling: Calling, result: CallResult) -> dict[str, Any]:
    return {
        "tool": calling.tool,
        "arguments": calling.arguments,
        "ids": result.ids,
        "scores": result.scores,
        "value": result.value,
    }


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a dialogue has come."""

    scene: Scene
    turns: Sequence[Turn]
    attempt: int
    started: datetime


def make_record(
    cast: Cast, plan: Plan, progress: Progress, reason: StopReason, error: str
) -> Dialogue:
    """Return the record of a dialogue that has stopped."""
    scene, turns = progress.scene, progress.turns
    shown: set[str] = set()
    for turn in turns:
        for result in recorded_results(turn):
            shown.update(result.ids)
    seeds = [plan.document.id] if plan.document is not None else []
    ids = [*seeds, *sorted(shown.difference(seeds))]
    return Dialogue(
        run=cast.run,
        round=cast.source.round,
        arm=cast.source.arm,
        walk_id=plan.walk_id,
        index=plan.index,
        seed=plan.seed,
        domain=cast.domain.name,
        domain_digest=cast.domain.digest,
        policy=cast.source.policy,
        persona_id=plan.persona.id,
        persona=plan.persona.text,
        goal=plan.goal,
        doc_ids=tuple(ids),
        documents=tuple((id_, cast.document(id_)) for id_ in ids),
        path=tuple(scene.path),
        stop_reason=reason,
        error=error,
        attempt=progress.attempt,
        subgoals_reached=tuple(scene.reached),
        node=cast.node,
        started_at=progress.started,
        ended_at=cast.now(),
        turns=tuple(turns),
    )
