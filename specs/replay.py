"""A recorded dialogue, played again turn by turn without a model: what each speaker knew.

Invariants: no engine, no store and no clock is asked; the words, slots and results are those of the
record, and everything else (memory, path, settled slots, who speaks where) comes from the domain
anew, so a record that says otherwise shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specs.ahead import behind, open_ahead, take_both, then_of
from specs.domain import Domain, Edge, Fact, Speech
from specs.errors import DuologueError
from specs.facts import fact_of
from specs.mishearing import Misheard, misheard, saying_back
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, Turn, dump_json
from specs.scene import Calling, CallResult, Moves, Scene
from specs.traits import edgeless


class ReplayError(DuologueError):
    """A record that cannot be followed."""


class OtherSource(ReplayError):
    """A dialogue that was made from another domain, or with another run seed, arm or index."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One turn of a record, with what its speaker knew.

    Attributes:
        speech: what was to be said: of the edge taken, or of the state in which the agent speaks.
        scope: the names that expressions saw as the turn was spoken, its own slots (agent: its
            reply) in place.
        calls: those made before the agent spoke, with their recorded results; none of a user's.
        differences: what the record says otherwise than the domain does, in words.
    """

    turn: Turn
    speech: Speech
    scope: Mapping[str, Any]
    calls: Sequence[tuple[Calling, CallResult]] = ()
    differences: tuple[str, ...] = ()

    @property
    def consistent(self) -> bool:
        """Whether state, edge, memory, settled slots, calls and path are those of the record."""
        return not self.differences


def source_of(dialogue: Dialogue, run_seed: int) -> PlanSource:
    """Return what a dialogue's plan was made from; `run_seed` is `seed` of the run's run.json."""
    return PlanSource(run_seed, dialogue.policy, dialogue.arm, dialogue.round)


def recorded_results(turn: Turn) -> list[CallResult]:
    """Return the results of all calls that were made before an agent's turn, in order."""
    if turn.routing and "calls" in turn.routing:
        return [
            CallResult(tuple(call["ids"]), tuple(call["scores"]), call["value"])
            for call in turn.routing["calls"]
        ]
    if turn.call is None:
        return []
    return [CallResult(turn.result_ids, turn.result_scores, turn.result)]


def recorded_calls(turn: Turn) -> list[tuple[str, Mapping[str, Any]]]:
    """Return tool and arguments of all calls made before an agent's turn, in order."""
    if turn.routing and "calls" in turn.routing:
        return [(call["tool"], call["arguments"]) for call in turn.routing["calls"]]
    return [] if turn.call is None else [(turn.call["tool"], turn.call["arguments"])]


def replay(dialogue: Dialogue, domain: Domain, source: PlanSource) -> Iterator[Replayed]:
    """Yield a dialogue's turns in order, each with what its speaker knew.

    Args:
        domain: as it was when the dialogue was made (the run's own copy of it).
        source: of the dialogue's plan (`source_of`).

    Raises:
        OtherSource: before the first turn, when the dialogue is of another domain or run seed.
        ReplayError: when the record cannot be followed: a turn is not where it belongs, or what it
            holds cannot be evaluated.
    """
    plan = make_plan(domain, source, dialogue.index)
    if plan.walk_id != dialogue.walk_id:
        same = dialogue.domain_digest == domain.digest
        other = "with another run seed, arm or index" if same else "from another domain"
        raise OtherSource(f"dialogue {dialogue.index} ({dialogue.walk_id[:12]}) was made {other}")
    follower = _Follower(dialogue, Scene(domain, plan))
    for turn in dialogue.turns:
        try:
            yield follower.follow(turn)
        except (DuologueError, LookupError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ReplayError(
                f"dialogue {dialogue.index}, turn {turn.index}: cannot be followed: {what}"
            ) from error


class _Follower:
    """Walks a scene along a record."""

    def __init__(self, dialogue: Dialogue, scene: Scene) -> None:
        self.dialogue = dialogue
        self.scene = scene
        self._edge: Edge | None = None
        self._then: Edge | None = None
        self._stayed = False
        self._fact: Fact | None = None
        self._unheard: Misheard | None = None
        self._held: Mapping[str, Any] = {}  # what was said before it came up
        # The walk of a dialogue that was written at once is over before a word is said.
        self._hears = dialogue.policy != "single_prompt"

    def follow(self, turn: Turn) -> Replayed:
        if turn.index != self.scene.turn:
            raise ReplayError(f"turn {self.scene.turn} should come here")
        done = self._user(turn) if turn.role == "user" else self._agent(turn)
        if self._hears:
            self.scene.heard = turn.text
        self.scene.turn += 1
        return done

    def _user(self, turn: Turn) -> Replayed:
        scene = self.scene
        waiting = self._edge is not None or self._stayed
        if waiting or (turn.index == 0 and scene.domain.open == "agent"):
            raise ReplayError("the user speaks where the agent should")
        unheard = misheard(scene.domain, turn)
        if unheard or (turn.edge < 0 and (self.dialogue.policy == "routed" or edgeless(turn))):
            return self._stay(turn)
        if not 0 <= turn.edge < len(scene.domain.edges):
            raise ReplayError(f"there is no edge {turn.edge}")
        edge = scene.domain.edges[turn.edge]
        different = _Differences()
        different.unless(not scene.ended, "the user speaks after the end")
        different.note("edge from", edge.from_, scene.node)
        if edge.from_ == scene.node:
            held = edge.when is None or bool(edge.when.evaluate(scene.scope()))
            different.unless(held, f"edge {edge.number} was not open")
        different.note("state", turn.state, scene.node)
        different.note("intent", turn.intent, edge.intent or "")
        different.note("memory", turn.memory, scene.memory)
        settled = scene.settle(edge.speech, "user")
        different.settled(turn.slots, settled)
        self._edge, self._then = edge, then_of(scene.domain, turn)
        if self._then is not None:
            known = self._then in open_ahead(behind(scene, edge))
            different.unless(known, f"edge {self._then.number} was not open behind {edge.number}")
        scene.slots = turn.slots
        return Replayed(turn, edge.speech, scene.scope(), (), different.found())

    def _stay(self, turn: Turn) -> Replayed:
        """Follow a free reply that took no edge."""
        scene = self.scene
        different = _Differences()
        different.unless(not scene.ended, "the user speaks after the end")
        different.note("state", turn.state, scene.node)
        different.note("memory", turn.memory, scene.memory)
        self._stayed = True
        speech = scene.domain.trait_speeches.get(edgeless(turn), scene.domain.user.speech)
        self._unheard = misheard(scene.domain, turn)
        if self._unheard is not None:
            edge = self._unheard[0]
            speech = edge.speech
            different.note("intent", turn.intent, edge.intent or "")
            for one in self._unheard:
                different.unless(one in scene.routable_edges(), f"edge {one.number} was not open")
        self._fact = fact_of(scene.domain, turn)
        if self._fact is not None:
            speech, self._held = self._fact.claim, scene.slots
            different.settled(turn.slots, scene.settle(speech, "user"))
            scene.slots = turn.slots
        return Replayed(turn, speech, scene.scope(), (), different.found())

    def _come_back(self, turn: Turn) -> Replayed:
        """Follow the agent's answer to it."""
        scene = self.scene
        self._stayed = False
        scene.come_back()
        different = _Differences()
        different.note("state", turn.state, scene.speaking)
        different.note("memory", turn.memory, scene.memory)
        different.unless(not recorded_calls(turn), "a call that was not to be made")
        self._compare_path(turn, different)
        held = (scene.slots if self._fact is None else self._held, scene.reply)
        speech = scene.domain.agent.speech
        if self._fact is not None:
            speech = self._fact.answer
        elif self._unheard is not None:
            speech = saying_back(scene.domain, self._unheard[1])
        else:
            return Replayed(turn, speech, scene.scope(), (), different.found())
        different.settled(turn.reply, scene.settle(speech, "agent"))
        scene.reply = turn.reply
        done = Replayed(turn, speech, scene.scope(), (), different.found())
        scene.slots, scene.reply = held
        return done

    def _agent(self, turn: Turn) -> Replayed:
        scene = self.scene
        if self._stayed:
            return self._come_back(turn)
        if self._edge is None and turn.index > 0:
            raise ReplayError("the agent speaks where the user should")
        if turn.index == 0 and scene.domain.open != "agent":
            raise ReplayError("the agent opens, and the user should")
        moves = scene.begin() if self._edge is None else take_both(scene, self._edge, self._then)
        left = _answer(moves, recorded_results(turn))
        self._edge = None
        different = _Differences()
        different.unless(not left, f"{left} results of calls that were not made")
        different.note("state", turn.state, scene.speaking)
        different.note("memory", turn.memory, scene.memory)
        made = [(calling.tool, dict(calling.arguments)) for calling, _ in scene.calls]
        different.note("calls", [list(call) for call in recorded_calls(turn)], made)
        speech = scene.domain.states[scene.speaking].speech
        different.settled(turn.reply, scene.settle(speech, "agent"))
        self._compare_path(turn, different)
        scene.reply = turn.reply
        done = Replayed(turn, speech, scene.scope(), tuple(scene.calls), different.found())
        scene.replied(turn.reply)
        return done

    def _compare_path(self, turn: Turn, different: _Differences) -> None:
        walked, recorded = tuple(self.scene.path), self.dialogue.path
        different.unless(walked == recorded[: len(walked)], "the path goes elsewhere")
        if self.dialogue.ended and turn is self.dialogue.turns[-1]:
            different.unless(self.scene.ended, "it is said to have ended, and has not")
            different.unless(len(walked) == len(recorded), "the path goes on after the end")


def _answer(moves: Moves, results: list[CallResult]) -> int:
    """Run moves with the recorded results; return how many of them are left."""
    try:
        calling = next(moves)
        while True:
            if not results:
                raise ReplayError(f"the record has no result of the call of {calling.tool!r}")
            calling = moves.send(results.pop(0))
    except StopIteration:
        return len(results)


class _Differences:
    def __init__(self) -> None:
        self._found: list[str] = []

    def found(self) -> tuple[str, ...]:
        return tuple(self._found)

    def unless(self, holds: bool, message: str) -> None:
        if not holds:
            self._found.append(message)

    def note(self, what: str, recorded: Any, replayed: Any) -> None:
        if not _equal(recorded, replayed):
            self._found.append(f"{what}: {_short(recorded)} in the record, {_short(replayed)} here")

    def settled(self, recorded: Mapping[str, Any], settled: Mapping[str, Any]) -> None:
        for name, value in settled.items():
            self.note(f"slot {name!r}", recorded.get(name), value)


def _equal(one: Any, other: Any) -> bool:
    # A record that was read again has lists in the place of tuples, and no other types than JSON's.
    return bool(one == other) or json.loads(dump_json(one)) == json.loads(dump_json(other))


def _short(value: Any) -> str:
    text = dump_json(value)
    return text if len(text) <= 60 else text[:57] + "..."
