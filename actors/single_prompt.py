"""The baseline: one prompt writes a whole dialogue.

The walk is taken first, without words (slots are what a reference would say, searches are real);
then one prompt lists every step's instruction, and one answer of the agent's engine has to hold all
utterances: a JSON object with a key for each, which a schema makes it keep to where the engine can
(without one, small models leave steps out or break off). Checks are made and recorded, but nothing
is asked for again: that is what the baseline is compared for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from actors.cast import Cast
from actors.laps import answered
from actors.prompts import (
    MAX_TEXT,
    Prompt,
    clean,
    flat,
    object_schema,
    render_shots,
    sound,
    utterances,
)
from actors.recording import Progress, call_fields, make_record
from actors.seat import request
from actors.speaking import Stopped
from specs.checks import run_checks
from specs.domain import Edge, Reference, Side, Speech
from specs.engine import Answer, Message
from specs.errors import DuologueError, EngineError, Unavailable
from specs.plan import Plan
from specs.records import Dialogue, StopReason, Turn, dump_json
from specs.scene import CallResult, Moves, Scene
from specs.seeds import digest, seed
from specs.utterance import Utterance
from specs.words import words

TOKENS_A_TURN = 48
"""Room for each utterance, in tokens; the key takes some of it."""

_CUTS = 8
"""How many commas from its end an answer is searched for where it is still an object."""

_PLAN = "What each of them says, in order:"
_WORDS = "The conversation, word for word, as one JSON object:"


def _keyed(lines: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return texts under their number and speaker."""
    return {f"{n}. {name}": text for n, (name, text) in enumerate(lines, start=1)}


def _listed(lines: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{key}: {text}" for key, text in _keyed(lines).items())


def _object(lines: Sequence[tuple[str, str]]) -> str:
    rows = (f"{dump_json(key)}: {dump_json(text)}" for key, text in _keyed(lines).items())
    return "{" + ",\n ".join(rows) + "}"


@dataclass(frozen=True, slots=True)
class Step:
    """One utterance to be written: what is told about it, and what is recorded with it."""

    side: Side
    name: str
    speech: Speech
    instruction: str
    reference: str
    scope: Mapping[str, Any]
    fields: Mapping[str, Any]


class SinglePrompt:
    """One dialogue, written by one request."""

    def __init__(self, cast: Cast, plan: Plan, attempt: int = 0) -> None:
        self.cast = cast
        self.plan = plan
        self.scene = Scene(cast.domain, plan)
        self.steps: list[Step] = []
        self.turns: list[Turn] = []
        self._attempt = attempt
        self._started = cast.now()

    async def play(self) -> Dialogue:
        """Walk, ask once, and return the record.

        Raises:
            Unavailable: when the engine or the store stays out of reach.
        """
        error = ""
        seat = self.cast.seats["agent"]
        try:
            reason = await self.walk()
            if reason is StopReason.ENDED:
                reason = await self._write()
        except Stopped as stopped:
            reason, error = stopped.reason, str(stopped)
        except (Unavailable, EngineError):
            raise
        except DuologueError as problem:
            reason, error = StopReason.ERROR, str(problem)
        finally:
            seat.client.release(self.plan.walk_id)
        progress = Progress(self.scene, self.turns, self._attempt, self._started)
        return make_record(self.cast, self.plan, progress, reason, error)

    # -- the walk

    async def walk(self) -> StopReason:
        """Settle every step of the dialogue but its words."""
        scene = self.scene
        scene.require_goal()
        if self.cast.domain.open == "agent":
            await self._agent_step(scene.begin())
        while not scene.ended:
            if scene.turn + 2 > self.cast.max_turns:
                return StopReason.TURN_LIMIT
            edge = scene.draw_edge()
            if edge is None:
                return StopReason.NO_EDGE
            self._user_step(edge)
            await self._agent_step(scene.take(edge, scene.slots))
        return StopReason.ENDED

    def _user_step(self, edge: Edge) -> None:
        scene = self.scene
        reference, scene.slots = scene.voiced(edge.speech, "user")
        fields = {
            "state": scene.node,
            "intent": edge.intent or "",
            "edge": edge.number,
            "slots": scene.slots,
        }
        self._step("user", edge.speech, reference, fields)

    async def _agent_step(self, moves: Moves) -> None:
        scene = self.scene
        await self._move(moves)
        speech = self.cast.domain.states[scene.speaking].speech
        reference, reply = scene.voiced(speech, "agent")
        scene.reply = reply
        fields = {"state": scene.speaking, "reply": reply, **call_fields(scene)}
        self._step("agent", speech, reference, fields)
        scene.replied(reply)

    async def _move(self, moves: Moves) -> None:
        try:
            calling = next(moves)
            while True:
                result: CallResult = await self.cast.caller.call(calling, self.scene)
                calling = moves.send(result)
        except StopIteration:
            return

    def _step(
        self, side: Side, speech: Speech, voiced: Reference | None, fields: Mapping[str, Any]
    ) -> None:
        scene = self.scene
        scope = scene.scope()
        assert speech.say is not None
        instruction = flat(speech.say.render(scope, scene.draws("say")))
        reference = ""
        if self.cast.seats["agent"].info.takes == "references" and voiced is not None:
            reference = flat(voiced.say.render(scope, scene.draws("reference say")))
        name = self.cast.cards[side].name
        kept = {**fields, "memory": scene.memory}
        self.steps.append(Step(side, name, speech, instruction, reference, scope, kept))
        scene.turn += 1

    # -- the words

    async def _write(self) -> StopReason:
        seat = self.cast.seats["agent"]
        prompt = self.prompt()
        tokens: Sequence[int] = ()
        if seat.tokenizer is not None:
            tokens = await asyncio.to_thread(seat.encode, prompt)
        room = TOKENS_A_TURN * len(self.steps)
        if seat.info.window and len(tokens) + room > seat.info.window:
            raise Stopped(
                StopReason.OVERFLOW,
                f"the prompt of {len(tokens)} tokens and {len(self.steps)} utterances do not fit "
                f"the window of {seat.info.window}",
            )
        drawn = seed(self.plan.walk_id, "single_prompt")
        sampling = seat.sampling(prompt, drawn, 1, max_tokens=room)
        id_ = f"{self.plan.walk_id}:all"
        answers = (self._answer(),) if seat.info.takes == "references" else ()
        asked = request(seat, id_, prompt, sampling, tokens, answers, self.plan.index)
        # The engine's deadline is that of one turn, and here all are written at once.
        asked = replace(asked, deadline_s=seat.deadline_s * len(self.steps))
        began = perf_counter()
        answer = await seat.client.ask(asked, self.plan.walk_id)
        answered(answer, began)
        if answer.failure is not None:
            if answer.failure.kind == "overflow":
                raise Stopped(StopReason.OVERFLOW, answer.failure.message)
            if answer.failure.permanent:
                raise Stopped(StopReason.REFUSED, answer.failure.message)
            late = answer.failure.kind == "deadline"
            raise Unavailable(f"{seat.info.model}: {answer.failure.message}", late)
        said = self._parse(sound(answer.candidates[0].text))
        for step, text in zip(self.steps, said, strict=False):
            self._record(step, text, prompt, answer, drawn, len(said))
        if len(said) < len(self.steps):
            raise Stopped(
                StopReason.UNPARSED, f"{len(said)} of {len(self.steps)} utterances were written"
            )
        return StopReason.ENDED

    def prompt(self) -> Prompt:
        """Return the one prompt, once the walk is done."""
        cards = self.cast.cards
        told = [(step.name, step.instruction) for step in self.steps]
        head = (
            f"A conversation between a {cards['user'].name} and a {cards['agent'].name}. "
            f"{flat(self.cast.domain.description)}"
        )
        profile = self.cast.seats["agent"].profile
        if profile.persona and self.plan.persona.text:
            head += f"\nThe {cards['user'].name}: {flat(self.plan.persona.text)}"
        text = f"{head}{self._example()}\n\n{_PLAN}\n{_listed(told)}\n\n"
        schema = dump_json(object_schema(utterances(*_keyed(told))))
        if profile.form == "script":
            return Prompt(text=f"{text}{_WORDS}\n", schema=schema)
        first, *_, last = _keyed(told)
        text += (
            "Write the conversation word for word, as one JSON object with a key for each "
            f"utterance, from {dump_json(first)} to {dump_json(last)}, and nothing else."
        )
        return Prompt(messages=(Message("user", text),), schema=schema)

    def _example(self) -> str:
        """Return how such a list becomes words, by the domain's examples of what comes first."""
        shots: dict[int, tuple[str, str, str]] = {}
        for step in self.steps:
            if step.speech.examples and id(step.speech) not in shots:
                [shot] = render_shots(step.speech, 1)
                shots[id(step.speech)] = step.name, flat(shot.instruction), flat(shot.say)
        chosen = list(shots.values())[: 2 * self.cast.seats["agent"].profile.examples]
        if not chosen:
            return ""
        plan = _listed([(name, instruction) for name, instruction, _ in chosen])
        said = _object([(name, say) for name, _, say in chosen])
        return f"\n\nAn example. {_PLAN}\n{plan}\n\n{_WORDS}\n{said}"

    def _answer(self) -> str:
        """Return the whole dialogue as the reference engine says it, in the form asked for."""
        return _object([(step.name, step.reference) for step in self.steps])

    def _parse(self, text: str) -> list[str]:
        """Return the utterances as far as they are there in order."""
        told = _read(text)
        said: list[str] = []
        for key in _keyed([(step.name, "") for step in self.steps]):
            utterance = told.get(key)
            if not isinstance(utterance, str) or not clean(utterance):
                break
            said.append(clean(utterance))
        return said

    def _record(
        self, step: Step, text: str, prompt: Prompt, answer: Answer, drawn: int, count: int
    ) -> None:
        seat = self.cast.seats["agent"]
        reason = answer.candidates[0].finish_reason
        last = len(self.turns) == count - 1
        utterance = Utterance(
            text=text,
            instruction=step.instruction,
            heard=self.turns[-1].text if self.turns else "",
            mine=[words(turn.text) for turn in self.turns if turn.role == step.side],
            theirs=[words(turn.text) for turn in self.turns if turn.role != step.side],
            names=[card.name for card in self.cast.cards.values()],
            phrases=self.cast.phrases,
            common=self.cast.common,
            finished=len(text) < MAX_TEXT and not (last and reason == "length"),
        )
        checks = run_checks(step.speech, utterance, step.scope, self.scene.draws("check"))
        first = not self.turns
        self.turns.append(
            Turn(
                index=len(self.turns),
                role=step.side,
                text=text,
                source="reference" if step.reference else "model",
                checks=tuple(checks),
                seed=drawn,
                sampling={"form": seat.profile.form, "temperature": seat.profile.temperature},
                prompt_digest=digest(prompt.exact())[:16],
                model=seat.info.model,
                adapter=seat.adapter,
                replica=answer.replica,
                finish_reason=reason if last else "stop",
                prompt_tokens=answer.prompt_tokens if first else 0,
                cached_tokens=answer.cached_tokens if first else 0,
                completion_tokens=answer.completion_tokens if first else 0,
                **step.fields,
            )
        )


def _read(text: str) -> dict[str, Any]:
    """Return the object in an answer, as far as it goes where it was cut off."""
    begun = text[max(text.find("{"), 0) :]
    for _ in range(_CUTS):
        for end in ("", '"}', "}"):
            try:
                told = json.JSONDecoder().raw_decode(begun + end)[0]
            except (ValueError, RecursionError):
                continue
            return told if isinstance(told, dict) else {}
        begun = begun.rpartition(",")[0]
    return {}
