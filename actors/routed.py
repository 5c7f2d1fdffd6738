"""Conversations with a manager: free talk that it routes, walks that it watches.

In free talk the graph steers the agent alone. The user says what they like, the manager finds the
edge that it stands for, and the agent is told what comes next; what no edge stands for leaves the
dialogue where it is: the agent answers, and comes back to the point. In a watched walk the edge is
drawn, and words that the manager takes for another intent are no good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from actors.cast import Cast
from actors.conversation import Conversation
from actors.filling import fill
from actors.manager import Manager, Verdict
from actors.manners import aside, revising
from actors.meaning import COMPARED, pair_of, put, verdict
from actors.prompts import flat
from actors.speaking import IN_ROLE, REFERENCES
from specs.ahead import THEN, take_both, then_of
from specs.checks import result
from specs.domain import Domain, Edge, Reference, Side, Speech
from specs.errors import ExpressionError
from specs.expressions import Template
from specs.mishearing import misheard
from specs.records import CheckResult, StopReason, Turn
from specs.rouge import recall_l, rouge_l
from specs.scene import Scene
from specs.traits import ASIDES
from specs.words import sentences, words

_FILLED_IN = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)


class HybridConversation(Conversation):
    """A walk whose utterances must mean what they were drawn for."""

    _drawn: Edge | None = None

    async def _user_turn(self, edge: Edge) -> None:
        self._drawn = edge
        await super()._user_turn(edge)
        self._drawn = None

    async def confirm(self, side: Side, text: str) -> Sequence[CheckResult]:
        """Hold a user's words against the edge that was drawn."""
        edge = self._drawn
        if side != "user" or edge is None:
            return await super().confirm(side, text)
        told = await super().confirm(side, text)
        if self.manner.then is not None:  # the manager has found both
            return told
        self._confirmed += 1  # every candidate is a question of its own
        said = self.manner.bare(text)
        found = await verdict(
            self, _manager(self.cast), said, self.scene.routable_edges(), self._confirmed
        )
        taken = self.cast.domain.edges[found.edge] if found.edge is not None else None
        same = taken is not None and (taken is edge or (taken.intent or 0) == edge.intent)
        return (*told, result("means", found.score, same))


def _manager(cast: Cast) -> Manager:
    assert cast.manager is not None
    return cast.manager


COPIED = 0.7
"""ROUGE-L with an example, or with the goal, from which on a free utterance is taken for a copy."""

BORROWED = 0.8
"""Share of an example's sentence, in its order, from which on it is taken for said again."""

SENTENCE = 5
"""Words of a sentence that tells whose it is."""

ROLE = 0.6
"""Cosine with the other side's lines from which on words may be out of role.

Of 206 held-out replies of the tavern and the healer 4 are taken for the agent's, of 135 of the
agent's own examples 54 when a user says them.
"""


class RoutedConversation(Conversation):
    """One dialogue of free talk along a workflow."""

    async def _round(self) -> StopReason | None:
        if self._astray("agent"):
            return StopReason.OUT_OF_ROLE
        trait = self._acting()
        if trait == "gives_up":
            await self._aside(trait)
            return StopReason.GAVE_UP
        edges = self._ways()
        if not edges:
            return StopReason.NO_EDGE
        edge, leave = await self._reply(edges, trait)
        if self._astray("user"):
            return StopReason.OUT_OF_ROLE
        if misheard(self.cast.domain, self.turns[-1]):
            await self._come_back()
        elif edge is not None:
            self.stays = 0
            then = then_of(self.cast.domain, self.turns[-1])
            await self._agent_turn(take_both(self.scene, edge, then))
        elif leave:
            return StopReason.CLOSED
        else:
            self.stays += 1
            if self.stays >= self._patience():
                return StopReason.LOOP
            await self._come_back()
        return None

    # -- roles

    async def confirm(self, side: Side, text: str) -> Sequence[CheckResult]:
        """Hold words against what is not to be said: what was lent, and the other side's lines."""
        scene, cast = self.scene, self.cast
        told = [*await super().confirm(side, text)]
        if lent := self._lent(side):
            spoken = [text, *sentences(text)]
            copied = max(rouge_l(said, one) for said in spoken for one in lent)
            own = copied < COPIED and not self._borrows(side, text)
            told.append(result("not_copied", round(copied, 4), own))
        if side == "user":
            told.append(result("not_again", None, not self._again(self.manner.bare(text))))
        agent = [*cast.literals(cast.domain.states[scene.speaking].speech)]
        user = [line for edge in self._around() for line in cast.literals(edge.speech)]
        if (fact := self.manner.fact) is not None:  # until the user speaks again
            agent += cast.literals(fact.answer)
            user += cast.literals(fact.claim)
        if side == "agent" and self.turns and misheard(cast.domain, self.turns[-1]):
            agent += cast.literals(cast.domain.mishearing)
        text = self.manner.bare(text)
        mine, theirs = (user, agent) if side == "user" else (agent, user)
        if not mine or not theirs:
            return told
        rival = await cast.caller.similarity(text, theirs)
        passed = rival < ROLE or await cast.caller.similarity(text, mine) >= rival
        return [*told, result(IN_ROLE, round(rival, 4), passed)]

    def _lent(self, side: Side) -> list[str]:
        """Return what a prompt shows for another end: the system message, examples, the goal."""
        cast = self.cast
        profile = cast.seats[side].profile
        shown = profile.persona or profile.form == "chat"
        told = sentences(self.system(side)) if shown else []
        if side == "agent" and not self.stays:
            return told  # a state's own examples say what is to be said
        speech = cast.domain.user.speech if side == "user" else cast.coming_back(self.scene.node)
        said = [*told, *(shot.say for shot in cast.shots(side, speech))]
        return [*said, self.plan.goal] if side == "user" else said

    def _borrows(self, side: Side, text: str) -> bool:
        """Whether a user's words hold a sentence of what their examples are about."""
        if side != "user":
            return False
        shots = self.cast.shots(side, self.cast.domain.user.speech)
        shown = (line for shot in shots for line in sentences(f"{shot.instruction} {shot.say}"))
        long = (line for line in shown if len(words(line)) >= SENTENCE)
        return any(recall_l(text, line) >= BORROWED for line in long)

    def _again(self, text: str) -> bool:
        """Whether a user says just the same as last, or a whole sentence that they said before."""
        mine = [turn.text for turn in self.turns if turn.role == "user"]
        if mine and words(text) == words(mine[-1]):
            return True
        said = {words(line) for one in mine for line in sentences(one)}
        lines = [words(line) for line in sentences(text)]
        return any(len(line) >= SENTENCE - 1 and line in said for line in lines)

    def _around(self) -> Sequence[Edge]:
        """Return the edges whose lines a user says about now: those ahead, and the last taken."""
        edges = [*self.cast.domain.edges_from(self.scene.node)]
        last = self.turns[-1] if self.turns else None
        if last is not None and last.edge >= 0:
            edges.append(self.cast.domain.edges[last.edge])
        return edges

    def _astray(self, side: Side) -> bool:
        """Whether a side has been out of role as often in a row as the other bears with."""
        last = [turn for turn in self.turns if turn.role == side][-self.cast.patience :]
        return len(last) == self.cast.patience and all(_out_of_role(turn) for turn in last)

    def _patience(self) -> int:
        """Return how often in a row the agent may come back: once less with an impatient user."""
        return max(1, self.cast.patience - ("impatient" in self.plan.traits))

    # -- the user's side

    def _ways(self) -> Sequence[Edge]:
        """Return the edges that a reply may take: a choice is taken back once, not to and fro."""
        edges, known = self.scene.routable_edges(), self.cast.domain.edges
        if any(turn.edge >= 0 and known[turn.edge].revises for turn in self.turns):
            return [edge for edge in edges if not edge.revises]
        return edges

    async def _reply(self, edges: Sequence[Edge], trait: str) -> tuple[Edge | None, bool]:
        """Let the user speak; return the edge that was taken, and whether they took their leave."""
        scene = self.scene
        logged, held = self._logged.get(scene.turn), scene.slots
        speech = self._speech_of(trait)
        spoken = await self._spoken("user", speech, logged)
        scene.slots = spoken.slots
        errs = logged is None and self.manner.errs(spoken.text, scene.scope())
        scene.slots = held  # what was said before still stands where nothing new is understood
        if logged is not None:
            edge = self.cast.domain.edges[logged.edge] if logged.edge >= 0 else None
            if edge is not None:
                scene.slots = logged.slots
            await self._said(logged, new=False)
            return edge, self.cast.closes(logged.text)
        said = self.manner.bare(spoken.text)
        beside = speech if trait in ASIDES else None
        found = await verdict(self, _manager(self.cast), said, edges, beside=beside)
        edge = self.cast.domain.edges[found.edge] if found.edge is not None else None
        spoken = await self._corrected(spoken)
        noted = self.manner.noted()
        if self.manner.then is not None:
            pair, score = await pair_of(self, _manager(self.cast), said) or (None, None)
            spoken = spoken.checked(result("two_intents", score, pair is not None))
            if pair is not None:
                edge, noted = pair[0], {THEN: pair[1].number}
        slots = await self._slots(edge, spoken.text) if edge is not None else {}
        if edge is not None:
            scene.slots = slots
        elif trait in ASIDES:
            slots = spoken.slots
        if trait in ASIDES and not spoken.has(trait):
            spoken = spoken.checked(result(trait, found.score, edge is None and errs))
        elif trait == "changes_mind":
            revised = edge is not None and edge.revises
            spoken = spoken.checked(result(trait, found.score, revised))
        elif self.manner.unheard is not None:
            near = spoken.passed(trait) and edge is self.manner.unheard[0]
            spoken = spoken.checked(result(trait, found.score, near))
        routing = self._routing(found) | noted
        turn = Turn(
            index=scene.turn,
            role="user",
            text=spoken.text,
            state=scene.node,
            intent=(edge.intent or "") if edge is not None else "",
            edge=edge.number if edge is not None else -1,
            slots=slots,
            memory=scene.memory,
            routing=routing,
            **spoken.record,
        )
        heard = self._taken_for(edge) if edge is not None and THEN not in noted else None
        if edge is not None and heard is not None:
            scene.slots = held
            noted = {"meant": edge.number, "heard": heard.number}
            turn = replace(turn, edge=-1, routing=routing | noted)
        await self._said(turn, new=True)
        return edge, self.cast.closes(spoken.text)

    def _speech_of(self, trait: str) -> Speech:
        """Return how the user speaks on a turn on which that trait acts, if one does."""
        if trait in ASIDES:
            return aside(self.cast.domain, self.manner, trait)
        edge = revising(self.scene) if trait == "changes_mind" else None
        said = [self.cast.domain.trait_speeches[trait].say] if edge is not None else []
        if self.manner.unheard is not None:  # its own words are told already
            edge = self.manner.unheard[0]
        if edge is not None and edge.speech.say is not None:
            wish = [*said, edge.speech.say]
            told = " ".join(_told(say, self.scene) for say in wish if say is not None)
            self.manner = replace(self.manner, told=f"{told} {self.manner.told}".strip())
        if edge is None:
            edge = self.taking = self.scene.draw_edge()
            then = self._second(edge) if edge is not None else None
            if edge is not None and then is not None:
                return self._free_speech(edge, then)
        return self._free_speech(edge)

    def _free_speech(self, edge: Edge | None, then: Edge | None = None) -> Speech:
        """Return how the user speaks freely; an edge's references stand in where no words pass.

        Args:
            then: another edge that is said as well.
        """
        card = self.cast.domain.user
        if edge is None:
            return card.speech
        count = COMPARED if self.manner.brief else REFERENCES  # of more, the shortest
        texts = put(self.scene, edge.speech, edge.number, count)
        if then is not None:
            wish = [_told(one.speech.say, self.scene) for one in (edge, then) if one.speech.say]
            told = " ".join([*wish, self.manner.told]).strip()
            self.manner = replace(self.manner, told=told)
            others = put(self.scene, then.speech, then.number, REFERENCES)
            texts = tuple(f"{one} {other}" for one, other in zip(texts, others, strict=False))
        where = card.speech.say.where if card.speech.say is not None else edge.where
        references = (Reference(Template(text, where), {}, where) for text in texts)
        return replace(card.speech, slots={}, references=tuple(references))

    async def _slots(self, edge: Edge, said: str) -> Mapping[str, Any]:
        """Return the edge's slots as they were said; what was not said is what a person meant."""
        scene = self.scene
        settled = scene.settle(edge.speech, "user")
        meant = scene.reference_slots(edge.speech, "user", None, settled)
        return {
            name: meant.get(name) if name in settled else fill(slot, said, meant.get(name))
            for name, slot in edge.speech.slots.items()
        }

    def _routing(self, found: Verdict) -> dict[str, Any]:
        kind = _manager(self.cast).kind
        routing: dict[str, Any] = {"manager": kind, "score": found.score}
        if found.text:
            routing["like"] = found.text
        return routing | self.managing()

    # -- the agent's side

    def _agent_speech(self) -> Speech:
        if self.cast.structured:
            return super()._agent_speech()
        return self.cast.unsteered(self.scene.speaking)

    def system(self, side: Side) -> str:
        """Return the side's system message; the agent's with the workflow where that is all."""
        told = super().system(side)
        if side == "user" or self.cast.structured:
            return told
        return f"{told}\n\n{workflow(self.cast.domain, self.scene)}".strip()


def _out_of_role(turn: Turn) -> bool:
    return any(check.name == IN_ROLE and not check.passed for check in turn.checks)


def workflow(domain: Domain, scene: Scene) -> str:
    """Return a whole workflow in words: what is said in each state, and where replies lead."""
    lines = ["This is how the conversation goes:"]
    for name, state in domain.states.items():
        if state.speech.say is None:
            continue
        lines.append(f"- {name}: {_told(state.speech.say, scene)}")
        for edge in domain.edges_from(name):
            wish = _told(edge.speech.say, scene) if edge.speech.say is not None else ""
            targets = " or ".join(dict.fromkeys(case.to for case in edge.to))
            lines.append(f"  - {wish} -> {targets}")
    return "\n".join(lines)


def _told(say: Template, scene: Scene) -> str:
    """Return an instruction as it reads at the start, or its source where it needs more."""
    try:
        return flat(say.render(scene.scope(), scene.draws("workflow")))
    except ExpressionError:
        return flat(_FILLED_IN.sub("...", say.source))
