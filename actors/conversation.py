"""One dialogue, played by two seats along a scene: one coroutine, from its plan to its record.

Invariants: nothing here is drawn from a shared generator, so a dialogue depends on its plan and on
the models alone; a turn is handed to `on_turn` before the next begins; turns given as `logged` are
taken as they were said, with the results that they had, and the dialogue goes on behind them. What
the dialogue does wrong by itself is its `StopReason`; what its surroundings do wrong is raised as
`Unavailable` and leaves no record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from actors.cast import Cast
from actors.manager import RougeManager
from actors.manners import (
    PLAIN,
    Manner,
    acting,
    aside,
    doubled,
    manner,
    revising,
    second,
    taken_for,
)
from actors.meaning import pair_of, verdict
from actors.prompts import Learned, Line
from actors.recording import Progress, call_fields, make_record
from actors.speaking import Stopped, speak
from actors.spoken import Spoken
from specs.agent_chat import Begun, answer_begun
from specs.agent_format import ChatMessage
from specs.ahead import THEN, take_both, then_of
from specs.checks import result
from specs.domain import Edge, Side, Speech
from specs.errors import DuologueError, EngineError, Unavailable
from specs.facts import fact_of, fact_told
from specs.mishearing import Misheard, misheard, saying_back
from specs.plan import Plan
from specs.records import CheckResult, Dialogue, StopReason, Turn
from specs.replay import recorded_results
from specs.scene import CallResult, Moves, Scene
from specs.seeds import later
from specs.traits import ACTING, ASIDES, told
from specs.words import words

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
        self.manner: Manner = PLAIN
        self.taking: Edge | None = None  # the edge that the user's words are to take
        self.stays = 0  # how often in a row the agent has come back to one point
        self._confirmed = 0
        self.managed = 0  # tokens that the manager has written about the turn to come
        self._attempt = attempt
        self._chat = [cast.brief] if cast.brief is not None else []  # as a trained agent knows it
        self._begun = Begun((), "")  # what it has written before its next words
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
            if (reason := await self._round()) is not None:
                return reason
        return StopReason.ENDED

    async def _round(self) -> StopReason | None:
        """Let both sides speak once; return why the dialogue stops here, if it does."""
        trait = self._acting()
        if trait == "gives_up":
            await self._aside(trait)
            return StopReason.GAVE_UP
        if trait in ASIDES:
            await self._aside(trait)
            self.stays += 1
            await self._come_back()
            return None
        edge = await self._edge(trait)
        if edge is None:
            return StopReason.NO_EDGE
        self.stays = 0
        await self._user_turn(edge)
        if misheard(self.cast.domain, self.turns[-1]):
            await self._come_back()
            return None
        then = then_of(self.cast.domain, self.turns[-1])
        await self._agent_turn(take_both(self.scene, edge, then))
        return None

    def _acting(self) -> str:
        """Return the trait that acts on the user's turn to come, and take on its manner."""
        if "user" in self.cast.people:
            return ""
        plan, scene = self.plan, self.scene
        logged = self._logged.get(scene.turn)
        if logged is None:
            trait = acting(plan, scene, self.turns)
        else:  # it acted, however that is drawn now
            trait = next((name for name, _ in told(logged) if name in ACTING), "")
        self.manner = manner(self.cast.domain, plan, scene, self.turns, trait)
        if logged is not None:
            self.manner = replace(self.manner, fact=fact_told(self.cast.domain, logged))
        self._confirmed = 0
        return trait

    async def _edge(self, trait: str = "") -> Edge | None:
        logged = self._logged.get(self.scene.turn)
        if logged is not None:  # it was taken, however edges are drawn now
            unheard = misheard(self.cast.domain, logged)
            return unheard[0] if unheard else self.cast.domain.edges[logged.edge]
        if self.manner.unheard is not None:
            return self.manner.unheard[0]
        person = self.cast.people.get("user")
        if person is None:
            revised = revising(self.scene) if trait == "changes_mind" else None
            return revised or self.scene.draw_edge()
        edges = self.scene.open_edges()
        return await person.choose_edge(self, edges) if edges else None

    async def _user_turn(self, edge: Edge) -> None:
        scene = self.scene
        logged, held = self._logged.get(scene.turn), scene.slots
        heard = self._taken_for(edge) if logged is None else None
        then = self._second(edge) if heard is None else None
        self.taking = edge
        speech = edge.speech if then is None else self.cast.both(edge, then)
        spoken = await self._spoken("user", speech, logged)
        scene.slots = spoken.slots if heard is None else held
        if "changes_mind" in self.manner.traits:
            spoken = spoken.checked(result("changes_mind", None, edge.revises))
        if logged is None:
            spoken = await self._corrected(spoken)
            spoken = await self._doubled(spoken, edge)
        noted = {} if then is None else {THEN: then.number}
        if heard is not None:
            noted = {"meant": edge.number, "heard": heard.number}
        turn = logged or Turn(
            index=scene.turn,
            role="user",
            text=spoken.text,
            state=scene.node,
            intent=edge.intent or "",
            edge=edge.number if heard is None else -1,
            slots=spoken.slots,
            memory=scene.memory,
            routing=noted | self.managing() or None,
            **spoken.record,
        )
        await self._said(turn, new=logged is None)

    def _taken_for(self, edge: Edge) -> Edge | None:
        """Return the edge that the agent mishears this one as; None where it understands."""
        room = self.scene.turn + 4 <= self.cast.max_turns  # to be corrected, and to be answered
        if not room or self.cast.people or not ACTING.isdisjoint(self.manner.traits):
            return None
        return taken_for(self.plan, self.scene, self.turns, edge)

    def _second(self, edge: Edge) -> Edge | None:
        """Return the edge that the user says as well as this one, and take on the manner."""
        if self.cast.people or not ACTING.isdisjoint(self.manner.traits):
            return None
        logged = self._logged.get(self.scene.turn)
        if logged is not None and not any(name == "two_intents" for name, _ in told(logged)):
            return None
        then = then_of(self.cast.domain, logged) if logged is not None else None
        then = then or second(self.plan, self.scene, self.turns, edge)
        if then is not None:
            self.manner = doubled(self.cast.domain, self.manner, self.scene, then)
        return then

    async def _doubled(self, spoken: Spoken, edge: Edge) -> Spoken:
        """Return a person's words for two edges with the check that candidates had."""
        if self.manner.then is None or spoken.has("two_intents"):
            return spoken
        return spoken.checked(await self._carries(spoken.text, edge, self.manner.then))

    async def _carries(self, text: str, edge: Edge, then: Edge) -> CheckResult:
        """Judge whether words stand for both edges, as the manager takes them."""
        self._confirmed += 1
        manager = self.cast.manager or RougeManager()
        pair, score = await pair_of(self, manager, text, self._confirmed) or (None, None)
        return result("two_intents", score, pair == (edge, then))

    async def _corrected(self, spoken: Spoken) -> Spoken:
        """Return a person's words that correct the agent with the check that candidates had."""
        if self.manner.unheard is None or spoken.has("corrects_agent"):
            return spoken
        return spoken.checked(await self._corrects(spoken.text, self.manner.unheard))

    async def _corrects(self, text: str, unheard: Misheard) -> CheckResult:
        """Judge whether words deny what was heard, and are nearer to what was meant."""
        said, cast = self.manner.bare(text), self.cast
        meant, heard = [
            await cast.caller.similarity(said, cast.literals(edge.speech)) for edge in unheard
        ]
        passed = self.manner.denies(text) and meant >= heard
        return result("corrects_agent", round(meant - heard, 4), passed)

    async def _aside(self, trait: str) -> None:
        """Let the user say what takes no edge."""
        scene = self.scene
        logged, held = self._logged.get(scene.turn), scene.slots
        speech = aside(self.cast.domain, self.manner, trait)
        spoken = await self._spoken("user", speech, logged)
        scene.slots = spoken.slots
        if logged is None and trait in ASIDES and not spoken.has(trait):
            for check in await self.confirm("user", spoken.text):
                spoken = spoken.checked(check)
        scene.slots = held  # what was said before still stands
        turn = logged or Turn(
            index=scene.turn,
            role="user",
            text=spoken.text,
            state=scene.node,
            slots=spoken.slots,
            memory=scene.memory,
            routing=self.manner.noted() | self.managing() or None,
            **spoken.record,
        )
        await self._said(turn, new=logged is None)

    async def _come_back(self) -> None:
        """Let the agent answer what fits nothing, and come back to the point."""
        scene, heard = self.scene, self.turns[-1]
        scene.come_back()
        fact, unheard = fact_of(self.cast.domain, heard), misheard(self.cast.domain, heard)
        speech = self.cast.coming_back(scene.node, fact)
        if unheard is not None:
            speech = saying_back(self.cast.domain, unheard[1])
        logged, held = self._logged.get(scene.turn), (scene.slots, scene.reply)
        if fact is not None:
            scene.slots = heard.slots
        spoken = await self._spoken("agent", speech, logged)
        scene.slots, scene.reply = held  # guards ask what was said where the dialogue still is
        turn = logged or Turn(
            index=scene.turn,
            role="agent",
            text=spoken.text,
            state=scene.node,
            reply=spoken.slots,
            memory=scene.memory,
            routing={"stays": self.stays} if unheard is None else None,
            **spoken.record,
        )
        await self._said(turn, new=logged is None)

    async def _agent_turn(self, moves: Moves) -> None:
        scene = self.scene
        logged = self._logged.get(scene.turn)
        recorded = recorded_results(logged) if logged else []
        await self._move(moves, recorded)
        spoken = await self._spoken("agent", self._agent_speech(), logged)
        scene.replied(spoken.slots)
        turn = logged or self._agent_record(spoken)
        await self._said(turn, new=logged is None)

    async def _spoken(self, side: Side, speech: Speech, logged: Turn | None) -> Spoken:
        if logged:
            self.learned(side, speech)  # of which it is a part from now on
            return _as_spoken(logged)
        person = self.cast.people.get(side)
        return await (person.speak(self, side, speech) if person else speak(self, side, speech))

    def _agent_speech(self) -> Speech:
        """Return what the agent is to say where the scene has taken it."""
        return self.cast.domain.states[self.scene.speaking].speech

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
        if self.cast.brief is not None:
            self._learn_of(turn)
        self.said_by[turn.role].append(words(turn.text))
        self.scene.heard = turn.text
        self.scene.turn += 1
        self.managed = 0
        if new:
            await self._on_turn(turn)

    # -- what speaking needs to know

    async def confirm(self, side: Side, text: str) -> Sequence[CheckResult]:
        """Return the policy's own checks on words that passed all others.

        What a vague user says, or has wrong, must be less like what an open edge stands for, as the
        manager takes it; what corrects the agent must be nearer to what was meant, and what says
        two things at once must stand for both.
        """
        if side == "user" and self.manner.unheard is not None:
            return (await self._corrects(text, self.manner.unheard),)
        if side == "user" and self.manner.then is not None and self.taking is not None:
            return (await self._carries(text, self.taking, self.manner.then),)
        trait = next((name for name in self.manner.traits if name in ASIDES), "")
        if side != "user" or not trait:
            return ()
        self._confirmed += 1  # every candidate is a question of its own
        manager = self.cast.manager or RougeManager()
        edges = self.scene.routable_edges()
        beside = aside(self.cast.domain, self.manner, trait)
        found = await verdict(self, manager, text, edges, self._confirmed, beside=beside)
        acts = found.edge is None and self.manner.errs(text, self.scene.scope())
        return (result(trait, found.score, acts),)

    def managing(self) -> dict[str, Any]:
        """Return what a turn records of a model that was asked about it; nothing of others."""
        manager = self.cast.manager
        if manager is None or not self.managed:
            return {}
        return {"manager": manager.kind, "tokens": self.managed}

    def system(self, side: Side) -> str:
        """Return the side's system message, rendered once a dialogue."""
        if side not in self.systems:
            card = self.cast.cards[side]
            scope = self.scene.scope()
            self.systems[side] = card.system.render(scope, self.scene.draws("system", side))
        return self.systems[side]

    def learned(self, side: Side, speech: Speech) -> Learned | None:
        """Return the conversation as a trained agent knows it before it speaks; None for others."""
        scene = self.scene
        if side == "user" or self.cast.brief is None:
            return None
        heard = self.turns[-1] if self.turns else None
        draws = later(self.plan.walk_id, scene.turn, "check")
        calls = tuple(scene.calls)
        self._begun = answer_begun(self.cast.domain, heard, speech, scene.scope(), calls, draws)
        return Learned((*self._chat, *self._begun.messages), self._begun.prefix)

    def _learn_of(self, turn: Turn) -> None:
        """Note a turn as a trained agent knows it."""
        if turn.role == "user":
            self._chat.append(ChatMessage("user", turn.text))
        else:
            said = ChatMessage("assistant", self._begun.prefix + turn.text)
            self._chat += [*self._begun.messages, said]

    def history(self, last: int) -> list[Line]:
        """Return what was said in the last so many turns."""
        return [Line(turn.role, turn.text) for turn in self.turns[-last:]] if last else []


def _as_spoken(turn: Turn) -> Spoken:
    return Spoken(turn.text, turn.slots if turn.role == "user" else turn.reply, {})
