"""The exact prompts of a recorded dialogue, rendered again from its record.

A record keeps the digest of each prompt and not the prompt, which would be the larger part of every
row. The dialogue is played again with its own words and results, each prompt is rendered by the
code that rendered it then, and the digest says whether it is the very same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from actors.cast import Cast
from actors.conversation import Conversation
from actors.prompts import Ask, Shot, less, render
from actors.routed import RoutedConversation
from actors.seat import Seat
from actors.single_prompt import SinglePrompt
from actors.speaking import Utterer
from actors.spoken import Spoken
from specs.domain import Domain, Side, Speech
from specs.engine import Answer, EngineInfo, Request
from specs.engine_section import Profile
from specs.errors import DuologueError
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, Turn
from specs.replay import recorded_results
from specs.scene import Calling, CallResult, Scene
from specs.seeds import digest

UNSURE = "(much like this; the record holds its digest only)"


class _Silent:
    """Stands for the engines and the store, which nobody asks."""

    async def ask(self, request: Request, dialogue: str) -> Answer:
        raise DuologueError("a recorded dialogue asks no engine")

    def release(self, dialogue: str) -> None:
        """There is nothing to forget."""

    async def call(self, calling: Calling, scene: Scene) -> CallResult:
        raise DuologueError("a recorded dialogue searches nothing")

    async def similarity(self, text: str, references: object) -> float:
        return 1.0


class _Reenacting(Conversation):
    """Plays the logged turns and renders what their speakers were shown."""

    def __init__(self, cast: Cast, dialogue: Dialogue) -> None:
        plan = make_plan(cast.domain, cast.source, dialogue.index)
        plan = replace(plan, traits=dialogue.traits)
        super().__init__(cast, plan, dialogue.attempt, dialogue.turns)
        self._recorded = {turn.index: turn for turn in dialogue.turns}
        self.prompts: dict[int, str] = {}

    async def _spoken(self, side: Side, speech: Speech, logged: Turn | None) -> Spoken:
        self._render(side, speech)
        return await super()._spoken(side, speech, logged)

    def _render(self, side: Side, speech: Speech) -> None:
        turn = self._recorded.get(self.scene.turn)
        if turn is None:
            raise DuologueError("the record ends here")
        if turn.prompt_digest:
            utterer = Utterer(self, side, speech)
            repair = tuple(turn.sampling.get("repair", ()))
            utterer.ask = replace(utterer.ask, repair=repair)
            self.prompts[turn.index] = _matching(utterer, turn)


class _Reenactment(_Reenacting):
    """A walk."""


class _FreeReenactment(_Reenacting, RoutedConversation):
    """Free talk; the manager's verdicts are in the record."""


def _matching(utterer: Utterer, turn: Turn) -> str:
    """Return the prompt whose digest the turn has, or the likeliest with a note."""
    first = ""
    for prompt in _variants(utterer):
        if digest(prompt)[:16] == turn.prompt_digest:
            return prompt
        first = first or prompt
    return f"{UNSURE}\n{first}"


def _variants(utterer: Utterer) -> Iterator[str]:
    """Yield the prompt as it is with all, half, ... of the history, and with fewer examples."""
    profile = utterer.seat.profile
    shots = utterer.conversation.cast.shots(utterer.side, utterer.speech)
    shown: tuple[Ask, tuple[Shot, ...]] | None = (utterer.ask, shots)
    while shown is not None:
        yield render(shown[0], profile, shown[1]).exact()
        shown = less(shown[0], profile, shown[1])


async def exact_prompts(
    dialogue: Dialogue,
    domain: Domain,
    source: PlanSource,
    profiles: Mapping[Side, Profile],
    structured: bool = True,
) -> dict[int, str]:
    """Return the prompts by turn, as far as the record can be played again.

    Args:
        domain: as it was when the dialogue was made (the run's own copy of it).
        structured: whether the agent of free talk was told what comes next.
    """
    silent = _Silent()
    adapter = next((turn.adapter for turn in dialogue.turns if turn.adapter), "")
    info = EngineInfo("", "messages", 0, 1)
    seats: dict[Side, Seat] = {
        side: Seat(silent, info, profile, adapter=adapter if side == "agent" else "")
        for side, profile in profiles.items()
    }
    most = len(dialogue.turns) + 2
    cast = Cast(domain, source, dialogue.run, seats, silent, max_turns=most, structured=structured)
    if dialogue.policy == "single_prompt":
        return await _whole(cast, dialogue)
    kind = _FreeReenactment if dialogue.policy == "routed" else _Reenactment
    reenactment = kind(cast, dialogue)
    await reenactment.play()
    return reenactment.prompts


class _Recorded(_Silent):
    """Answers calls with the results that they had."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._results = [result for turn in dialogue.turns for result in recorded_results(turn)]

    async def call(self, calling: Calling, scene: Scene) -> CallResult:
        if not self._results:
            raise DuologueError("the record ends here")
        return self._results.pop(0)


async def _whole(cast: Cast, dialogue: Dialogue) -> dict[int, str]:
    """Return the one prompt of a dialogue that was written at once, beside its first turn."""
    if not dialogue.turns:
        return {}
    plan = make_plan(cast.domain, cast.source, dialogue.index)
    single = SinglePrompt(replace(cast, caller=_Recorded(dialogue)), plan, dialogue.attempt)
    await single.walk()
    prompt = single.prompt().exact()
    if digest(prompt)[:16] != dialogue.turns[0].prompt_digest:
        prompt = f"{UNSURE}\n{prompt}"
    return {0: prompt}
