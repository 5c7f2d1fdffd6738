"""One utterance: ask, check, ask for more, repair, fall back on a person's words.

Few candidates are asked for first and more only when those fail, because candidates cost nearly
what requests cost; a turn never loops: two batches, one repair, then the reference, then a stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

from actors.laps import CHECKS, PROMPT, answered, asked_again, spent
from actors.manners import BRIEF, PLAIN, shortened
from actors.prompts import Ask, Prompt, Unparsed, clean, complete, less, parse, render, sound
from actors.seat import Seat, request
from actors.spoken import Judged, Spoken
from specs.checks import pending, result, run_checks, threshold, together
from specs.domain import Reference, Side, Slot, Speech
from specs.engine import Answer, Candidate, Failure, Sampling
from specs.errors import DuologueError, ExpressionError, Unavailable
from specs.records import CheckResult, StopReason
from specs.scene import SceneError
from specs.seeds import digest, seed, shuffled
from specs.utterance import Utterance
from specs.words import words

if TYPE_CHECKING:
    from actors.conversation import Conversation

REFERENCES = 4
"""References that an utterance is compared with."""

IN_ROLE = "in_role"
"""The check that nobody speaks the other side's lines."""

ANSWERS = 1
"""References that the reference engine is given; they come in a drawn order."""


class Stopped(DuologueError):
    """The dialogue cannot go on by its own doing."""

    def __init__(self, reason: StopReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


async def speak(conversation: Conversation, side: Side, speech: Speech) -> Spoken:
    """Return what a side says.

    Raises:
        Stopped: when there are no words, not even a reference's, or the prompt does not fit.
        Unavailable: when the engine stays out of reach.
    """
    turn = Utterer(conversation, side, speech)
    first, more = turn.seat.profile.candidates
    for attempt, count in enumerate((first, more)):
        if count and (spoken := await turn.attempt(attempt, count)):
            return spoken
    if turn.seat.profile.repair and turn.failed:
        turn.ask = replace(turn.ask, repair=tuple(turn.failed))
        if spoken := await turn.attempt(2, 1):
            return spoken
    return turn.reference()


class Utterer:
    """The work on one utterance."""

    def __init__(self, conversation: Conversation, side: Side, speech: Speech) -> None:
        scene = conversation.scene
        self.conversation = conversation
        self.side: Side = side
        self.speech = speech
        self.seat: Seat = conversation.cast.seats[side]
        self.settled = scene.settle(speech, side)
        self._hold(self.settled)
        learned = conversation.learned(side, speech)
        written: tuple[Slot, ...] = ()
        self.unwritten = self.settled
        if learned is None:
            written = tuple(slot for slot in speech.slots.values() if slot.value is None)
        else:  # it writes words alone
            self.unwritten = scene.voiced(speech, side)[1]
        assert speech.say is not None
        self.manner = conversation.manner if side == "user" else PLAIN
        instruction = speech.say.render(scene.scope(), scene.draws("say"))
        if self.manner.told:
            instruction = f"{instruction.strip()} {self.manner.told}"
        self.ask = Ask(
            side=side,
            cards=conversation.cast.cards,
            system=conversation.system(side),
            speech=speech,
            instruction=instruction,
            written=written,
            history=conversation.history(self.seat.profile.history),
            learned=learned,
        )
        self.rejected: list[str] = []
        self.failed: list[str] = []
        self.tokens = 0
        self.last: dict[str, Any] = {}
        self._shown = ""  # the last prompt's digest
        self._fresh: list[tuple[str, Mapping[str, Any]]] = []
        self._stale: list[tuple[str, Mapping[str, Any]]] = []
        # It must not know the utterer: a circle would live on until the collector comes by.
        self._order: Iterator[Reference] | None = None
        self._most = BRIEF
        self._said_before: set[str] = set()

    def _hold(self, slots: Mapping[str, Any]) -> None:
        # Checks and templates see the slots of the candidate in hand.
        if self.side == "user":
            self.conversation.scene.slots = slots
        else:
            self.conversation.scene.reply = slots

    async def attempt(self, attempt: int, count: int) -> Spoken | None:
        """Ask for candidates; return the first that passes, or None."""
        scene = self.conversation.scene
        walk = self.conversation.plan.walk_id
        if attempt:
            asked_again("candidates" if attempt == 1 else "repair")
        began = perf_counter()
        prompt, tokens = await self._fit()
        spent(PROMPT, began)
        request_seed = seed(walk, scene.turn, attempt)
        sampling = self.seat.sampling(prompt, request_seed, count)
        asked = request(
            self.seat,
            f"{walk}:{scene.turn}:{attempt}",
            prompt,
            sampling,
            tokens,
            self._answers() if self.seat.info.takes == "references" else (),
            self.conversation.plan.index,
        )
        self._shown = digest(prompt.exact())[:16]
        del prompt, tokens  # thousands of turns wait here at once
        began = perf_counter()
        answer = await self.seat.client.ask(asked, walk)
        answered(answer, began)
        if answer.failure is not None:
            self._fail(answer.failure)
        self.tokens += answer.completion_tokens
        for number, candidate in enumerate(answer.candidates):
            judged = await self._judge(candidate)
            if judged.passed:
                record = self._record(answer, judged, sampling, attempt, number)
                self._hold(judged.slots)
                return Spoken(judged.text, judged.slots, record)
            self.rejected.append(judged.text)
            failed = [check.name for check in judged.checks if not check.passed]
            self.failed += [name for name in failed if name not in self.failed]
        self.last = self._spent(answer, request_seed)
        return None

    def _fail(self, failure: Failure) -> None:
        if failure.kind == "overflow":
            raise Stopped(StopReason.OVERFLOW, failure.message)
        if failure.kind == "refused":
            raise Stopped(StopReason.REFUSED, failure.message)
        message = f"{self.side}'s engine {self.seat.info.model}: {failure.message}"
        raise Unavailable(message, late=failure.kind == "deadline")

    async def _fit(self) -> tuple[Prompt, Sequence[int]]:
        """Render, and leave the oldest history out until prompt and answer fit the window."""
        shown = (self.ask, self.conversation.cast.shots(self.side, self.speech))
        while True:
            ask, shots = shown
            prompt = render(ask, self.seat.profile, shots)
            if self.seat.tokenizer is None:
                return prompt, ()
            if self.seat.executor is None:
                tokens = self.seat.encode(prompt)
            else:
                loop = asyncio.get_running_loop()
                tokens = await loop.run_in_executor(self.seat.executor, self.seat.encode, prompt)
            room = self.seat.info.window - self.seat.profile.max_tokens
            if not self.seat.info.window or len(tokens) <= room:
                return prompt, tokens
            fewer = less(ask, self.seat.profile, shots)
            if fewer is None:
                raise Stopped(
                    StopReason.OVERFLOW,
                    f"the {self.side}'s prompt has {len(tokens)} tokens, and the window of "
                    f"{self.seat.info.window} leaves room for {room}",
                )
            shown = fewer

    async def _judge(self, candidate: Candidate) -> Judged:
        try:
            said, written = parse(self.ask, self.seat.form, candidate.text)
        except Unparsed as problem:
            check = CheckResult(f"form: {problem}"[:80], None, False)
            return Judged(sound(candidate.text.strip()), self.settled, (check,))
        slots = {**self.settled, **written} if written else self.unwritten
        finished = candidate.finish_reason != "length"
        if self.manner.brief:
            self.references()  # tells how few words a person needs
            if self.manner.fact is None:  # half of what somebody has wrong tells nothing
                short = shortened(said, self._most)
                finished, said = finished or short != said, short
        checks = self._checks(said, slots, finished)
        judged = Judged(said, slots, together(checks))
        if judged.passed:
            judged = await self._similar(judged)
        if judged.passed:
            judged = replace(judged, text=self.manner.opened(judged.text))
            more = await self.conversation.confirm(self.side, judged.text)
            judged = replace(judged, checks=together([*judged.checks, *more])) if more else judged
        return judged

    def _checks(self, said: str, slots: Mapping[str, Any], finished: bool) -> list[CheckResult]:
        began, scene = perf_counter(), self.conversation.scene
        self._hold(slots)
        utterance = Utterance(
            text=said,
            instruction=self.ask.instruction,
            heard=scene.heard,
            mine=self.conversation.said_by[self.side],
            theirs=self.conversation.said_by["agent" if self.side == "user" else "user"],
            names=[card.name for card in self.ask.cards.values()],
            finished=finished,
            phrases=self.conversation.cast.phrases,
            common=self.conversation.cast.common,
        )
        results = run_checks(self.speech, utterance, scene.scope(), scene.draws("check"))
        results += self.manner.checks(said, self._most)
        self._hold(self.settled)
        spent(CHECKS, began)
        return results

    async def _similar(self, judged: Judged) -> Judged:
        checks = list(judged.checks)
        rivals = self._rivals()
        for call in pending(self.speech):
            least = threshold(call, self.conversation.scene.scope())
            # Examples are a person's words as much as references are.
            texts = [said for said, _ in self.references()]
            texts += [shot.say for shot in self.conversation.cast.shots(self.side, self.speech)]
            value = await self.conversation.cast.caller.similarity(judged.text, texts)
            # What is more like the other side's last kind of utterance is out of role.
            passed = value >= least
            if passed and rivals:
                rival = await self.conversation.cast.caller.similarity(judged.text, rivals)
                passed = value >= rival
            checks.append(result("similar", round(value, 4), passed))
        return replace(judged, checks=together(checks))

    def _rivals(self) -> list[str]:
        """Return how the other side's last utterance might have been put."""
        if not self.conversation.turns:
            return []
        cast, last = self.conversation.cast, self.conversation.turns[-1]
        if last.role == "agent":
            return cast.literals(cast.domain.states[last.state].speech)
        taken = last.edge >= 0  # free words may take none
        return cast.literals(
            cast.domain.edges[last.edge].speech if taken else cast.domain.user.speech
        )

    # -- references

    def references(self, count: int = REFERENCES) -> list[tuple[str, Mapping[str, Any]]]:
        """Return some of the references with their slots: those that were not said yet, if any."""
        if self._order is None:
            self._order = self._in_order()
            turns = self.conversation.turns
            self._said_before = {turn.text for turn in turns if turn.role == self.side}
            if self.manner.meant:  # to put it otherwise might be to mean something else
                self._fresh.append((self.manner.meant, self.settled))
        for reference in self._order if len(self._fresh) < count else ():
            rendered = self._rendered(reference)
            if rendered is not None:
                (self._stale if rendered[0] in self._said_before else self._fresh).append(rendered)
            if len(self._fresh) == count:
                break
        return self._fresh[:count] or self._stale

    def _in_order(self) -> Iterator[Reference]:
        """Return the references in a drawn order; where it is so told, the shortest ones first."""
        scene = self.conversation.scene
        order = shuffled(self.speech.references, scene.plan.walk_id, scene.turn, "order")
        if not self.manner.brief:
            return order
        lengths = {}
        for place, reference in enumerate(order):
            rendered = self._rendered(reference)
            if rendered is not None:  # it suits the document
                lengths[place] = (len(words(rendered[0])), reference)
        shortest = sorted(lengths.values(), key=lambda one: one[0])
        if shortest:
            self._most = max(BRIEF, shortest[0][0])
        return iter([reference for _, reference in shortest])

    def _rendered(self, reference: Reference) -> tuple[str, Mapping[str, Any]] | None:
        scene = self.conversation.scene
        try:
            slots = scene.reference_slots(self.speech, self.side, reference, self.settled)
            self._hold(slots)
            text = clean(reference.say.render(scene.scope(), scene.draws("reference say")))
        except (ExpressionError, SceneError):
            return None  # this one does not suit the document; another may
        finally:
            self._hold(self.settled)
        return (text, slots) if text else None

    def _answers(self) -> list[str]:
        form = self.seat.form
        return [complete(self.ask, form, said, slots) for said, slots in self.references(ANSWERS)]

    def reference(self) -> Spoken:
        """Return a person's words in the model's place; raises Stopped when there are none."""
        references = self.references(1)
        if not references:
            raise Stopped(
                StopReason.NO_WORDS,
                f"no candidate of the {self.side} passed ({', '.join(self.failed)}), and there is "
                "no reference",
            )
        said, slots = references[0]
        checks = self._checks(said, slots, finished=True)
        if IN_ROLE in self.failed:  # why the reference stands here; free talk counts them
            checks.append(result(IN_ROLE, None, False))
        said = self.manner.opened(said)
        self._hold(slots)
        record = {
            **self.last,
            "source": "reference",
            "checks": together(checks),
            "rejected": tuple(self.rejected),
            "completion_tokens": self.tokens,
        }
        return Spoken(said, slots, record)

    # -- the record

    def _record(
        self, answer: Answer, judged: Judged, sampling: Sampling, attempt: int, number: int
    ) -> dict[str, Any]:
        source = "repair" if attempt == 2 else "model"
        if self.seat.info.takes == "references":
            source = "reference"
        drawn = (("n", sampling.n), ("attempt", attempt), ("candidate", number))
        return {
            **self._spent(answer, sampling.seed + number, drawn),
            "source": source,
            "checks": judged.checks,
            "rejected": tuple(self.rejected),
            "finish_reason": answer.candidates[number].finish_reason,
            "completion_tokens": self.tokens,
        }

    def _spent(
        self, answer: Answer, drawn: int, draw: tuple[tuple[str, int], ...] = ()
    ) -> dict[str, Any]:
        profile = self.seat.profile
        return {
            "seed": drawn,
            "sampling": _sampling(
                self.seat.form,
                profile.temperature,
                profile.top_p,
                profile.max_tokens,
                self.ask.repair,
                draw,
            ),
            "prompt_digest": self._shown,
            "model": self.seat.info.model,
            "adapter": self.seat.adapter,
            "replica": answer.replica,
            "prompt_tokens": answer.prompt_tokens,
            "cached_tokens": answer.cached_tokens,
            "completion_tokens": self.tokens,
            "queue_s": answer.queue_s,
            "prefill_s": answer.prefill_s,
            "decode_s": answer.decode_s,
        }


@lru_cache(maxsize=1024)
def _sampling(
    form: str,
    temperature: float,
    top_p: float,
    max_tokens: int,
    repair: tuple[str, ...],
    draw: tuple[tuple[str, int], ...],
) -> Mapping[str, Any]:
    """Return how a turn was decoded, one object for all turns that were decoded so."""
    sampling: dict[str, Any] = {
        "form": form,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
    }
    if repair:
        sampling["repair"] = list(repair)  # a part of the prompt
    return {**sampling, **dict(draw)}
