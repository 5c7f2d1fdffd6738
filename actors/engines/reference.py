"""The reference engine: it speaks the domain's references, seeded, without a model.

What it says, and how long it takes, depends on the request's seed alone, so that two runs of it are
equal; whether it fails depends on the request's id too, so that trying again can succeed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from specs.engine import (
    REFERENCE,
    Answer,
    Candidate,
    EngineInfo,
    EngineStats,
    Failure,
    Request,
    dead,
)
from specs.engine_section import EngineSection, ReferenceFaults
from specs.errors import EngineError
from specs.seeds import seed, uniform

_GARBAGE = "As an AI language model, I " * 40


def latency_of(faults: ReferenceFaults, sampling_seed: int, words: int) -> float:
    """Return the seconds that a request takes once it has begun.

    Args:
        sampling_seed: of the request.
        words: of its first candidate.
    """
    low, high = faults.latency_s
    seconds = low + faults.token_s * words
    if high > low:
        seconds += (high - low) * uniform("latency", sampling_seed)
    if faults.stragglers and uniform("straggler", sampling_seed) < faults.stragglers:
        seconds *= faults.straggler_factor
    return seconds


class ReferenceBackend:
    """Answers with one of the request's references a candidate (implements `Backend`)."""

    def __init__(self, config: EngineSection, name: str) -> None:
        self._config = config
        self._faults = config.faults
        self._name = name
        self._answered = 0
        self._running = 0
        self._tokens = 0
        self._death: EngineError | None = None

    async def start(self) -> EngineInfo:
        """Return at once: there is nothing to load."""
        self._answered = 0
        self._death = None
        return EngineInfo(
            model=REFERENCE,
            takes="references",
            window=0,
            max_running=self._config.max_running,
        )

    def admit(self) -> float:
        """Return 0: nothing but the places limits it."""
        return 0.0

    async def generate(self, request: Request) -> Answer:
        """Answer after the drawn latency; raises EngineError after `crash_after` requests."""
        if self._death is not None:
            raise self._death
        self._answered += 1
        faults = self._faults
        if faults.crash_after and self._answered > faults.crash_after:
            self._death = dead(f"{self._name} has crashed after {faults.crash_after} requests")
            raise self._death
        self._running += 1
        try:
            if faults.hang and _draw("hang", request) < faults.hang:
                await asyncio.get_running_loop().create_future()
            answer = self._say(request)
            if answer.decode_s > 0:
                await asyncio.sleep(answer.decode_s)
        finally:
            self._running -= 1
        self._tokens += answer.completion_tokens
        return answer

    async def abort(self, request_ids: Sequence[str]) -> None:
        """Nothing to do: whoever waits for the answer has been cancelled."""

    def stats(self) -> EngineStats:
        """Return the load now."""
        return EngineStats(running=self._running, completion_tokens=self._tokens)

    async def reset_cache(self) -> None:
        """Nothing to do: there is no cache."""

    async def stop(self) -> None:
        """Nothing to release."""

    def _say(self, request: Request) -> Answer:
        faults, first = self._faults, request.sampling.seed
        if not request.references:
            message = "the reference engine has nothing to say: the turn has no reference"
            return Answer(request.id, failure=Failure("refused", message))
        candidates = tuple(self._candidate(request, first + i) for i in range(request.sampling.n))
        latency = latency_of(faults, first, candidates[0].tokens)
        if faults.failure and _draw("failure", request) < faults.failure:
            failure = Failure("unavailable", "an injected failure")
            return Answer(request.id, failure=failure, decode_s=latency)
        return Answer(
            request.id,
            candidates=candidates,
            completion_tokens=sum(candidate.tokens for candidate in candidates),
            decode_s=latency,
        )

    def _candidate(self, request: Request, number: int) -> Candidate:
        garbage = self._faults.garbage
        if garbage and uniform("garbage", number) < garbage:
            return Candidate(_GARBAGE, "length", len(_GARBAGE.split()))
        text = request.references[seed("reference", number) % len(request.references)]
        return Candidate(text, "stop", len(text.split()))


def _draw(what: str, request: Request) -> float:
    return uniform(what, request.sampling.seed, request.id)
