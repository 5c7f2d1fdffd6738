"""What cannot be said or judged, found by rendering what sampled dialogues would speak with.

A walk without words (`walk_sample`) never asks for instructions, references, system messages and
the arguments of checks; here each is rendered where a dialogue would need it. What fails is noted
and the dialogue goes on, so that one fault does not hide those behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from actors.retrieval.sampled import SampledTools
from specs.checks import values_of
from specs.domain import Domain, Reference, Side, Speech
from specs.errors import DuologueError, Finding, Where
from specs.expressions import EvaluationError
from specs.frames import metered
from specs.plan import PlanSource, make_plan
from specs.scene import Calling, CallResult, Moves, Scene, drive

WORK = 20_000_000
"""What all these dialogues may spend together, as evaluations count it: a second or two."""


def unsayable(domain: Domain, seed: int, count: int) -> list[Finding]:
    """Return what fails in `count` dialogues, at the templates that failed.

    What fails in all of them is an error, the rest are warnings.
    """
    source, tools = PlanSource(seed), SampledTools(domain)
    reasons: dict[Where, str] = {}
    struck = Counter[Where]()
    played = 0
    with metered(WORK) as meter:
        for index in range(count):
            dialogue = _Dialogue(domain, source, index, tools)
            dialogue.play()
            if meter.spent:  # what failed in this one may have failed for it
                break
            played += 1
            struck.update(dialogue.faults.keys())
            reasons = {**dialogue.faults, **reasons}
    return [
        Finding(
            where,
            f"fails in {times} of {played} sampled walks: {reasons[where]}",
            "",
            "error" if times == played else "warning",
        )
        for where, times in sorted(struck.items())
    ]


class _Dialogue:
    """One dialogue, spoken with the first of its references that can be rendered.

    Attributes:
        faults: the reason of each failure, by the place of what failed.
    """

    def __init__(self, domain: Domain, source: PlanSource, index: int, tools: SampledTools) -> None:
        self.domain = domain
        self.tools = tools
        self.faults: dict[Where, str] = {}
        self._plan = source, index

    def play(self) -> None:
        """Play to the end, or to where the walk itself fails: `walk_sample` says where."""
        try:
            scene = Scene(self.domain, make_plan(self.domain, *self._plan))
            self._play(scene)
        except DuologueError:
            return

    def _play(self, scene: Scene) -> None:
        for side, card in (("user", self.domain.user), ("agent", self.domain.agent)):
            with self._noting(card.system.where):
                card.system.render(scene.scope(), scene.draws("system", side))
        if self.domain.open == "agent":
            self._answer(scene, scene.begin())
        while not scene.ended and scene.turn + 2 <= self.domain.max_turns:
            edge = scene.draw_edge()
            if edge is None:
                return
            slots = self._speak(scene, edge.speech, "user")
            self._answer(scene, scene.take(edge, slots))

    def _answer(self, scene: Scene, moves: Moves) -> None:
        def answer(calling: Calling) -> CallResult:
            return self.tools(calling, scene.scope())

        drive(moves, answer)
        speech = self.domain.states[scene.speaking].speech
        scene.replied(self._speak(scene, speech, "agent"))

    def _speak(self, scene: Scene, speech: Speech, side: Side) -> Mapping[str, Any]:
        """Say what a side would, by a reference; return its slots."""
        settled = scene.settle(speech, side)
        _hold(scene, side, settled)
        if speech.say is not None:
            with self._noting(speech.say.where):
                speech.say.render(scene.scope(), scene.draws("say"))
        said, slots = self._reference(scene, speech, side, settled)
        _hold(scene, side, slots)
        for check in speech.checks:
            with self._noting(check.where):
                values_of(check, scene.scope(), scene.draws("check"))
        scene.heard = said
        scene.turn += 1
        return slots

    def _reference(
        self, scene: Scene, speech: Speech, side: Side, settled: Mapping[str, Any]
    ) -> tuple[str, Mapping[str, Any]]:
        """Return the first reference that suits the document; that none does is a fault."""
        first: tuple[Where, str] | None = None
        for reference in _from(speech.references, scene.turn):
            try:
                slots = scene.reference_slots(speech, side, reference, settled)
                _hold(scene, side, slots)
                said = reference.say.render(scene.scope(), scene.draws("reference say"))
                return said, slots
            except DuologueError as error:
                first = first or (reference.say.where, _reason(error))
        if first is not None:
            where, reason = first
            self.faults.setdefault(where, f"no reference can be rendered; this one: {reason}")
        return "", scene.reference_slots(speech, side, None, settled)

    @contextmanager
    def _noting(self, where: Where) -> Iterator[None]:
        try:
            yield
        except DuologueError as error:
            self.faults.setdefault(where, _reason(error))


def _hold(scene: Scene, side: Side, slots: Mapping[str, Any]) -> None:
    if side == "user":
        scene.slots = slots
    else:
        scene.reply = slots


def _from(references: Sequence[Reference], turn: int) -> Iterator[Reference]:
    """Yield all references, another one first at another turn."""
    start = turn % len(references) if references else 0
    yield from (*references[start:], *references[:start])


def _reason(error: DuologueError) -> str:
    if isinstance(error, EvaluationError):
        return f"{error.reason} (in `{error.failed.source.strip()[:80]}`)"
    return str(error)
