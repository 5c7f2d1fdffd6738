"""The Engine protocol: how a turn's request reaches a model and how its answer comes back.

Invariants: a request is answered exactly once in each incarnation of a replica, or aborted;
submitting it again is harmless (requests are known by their id); an answer stays available until
the client has acknowledged its sequence number. Times are seconds, measured by the replica.

What travels with every turn (`Request`, `Answer` and their parts) has no slots: pickle reads and
writes an instance's dictionary in C, but a frozen slotted one field by field in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from specs.errors import EngineError

Takes = Literal["tokens", "messages", "references"]
"""What an engine is given: token ids, chat messages or script text, or the domain's references."""


REFERENCE = "reference"
"""What the reference engine calls its model."""


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Sampling:
    """How one request is decoded.

    Attributes:
        seed: of the first candidate; candidate i uses seed + i.
        schema: a JSON schema that the text must match, as JSON text; None for free text.
        stop: the text ends before the first of these.
    """

    max_tokens: int
    seed: int
    n: int = 1
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    schema: str | None = None


@dataclass(frozen=True)
class Request:
    """One turn's request. Exactly one of `tokens`, `messages`, `text` and `references` is given.

    Attributes:
        id: unique in the run and the same whenever the same request is sent again.
        role: whose words it asks for; with its dialogue it settles which replica answers it.
        messages: for engines that template by themselves; `text` is a script to be continued.
        references: complete answers in the form that the prompt asks for, each as good as another
            (what the reference engine says).
        deadline_s: seconds that it may take from its admission by the replica on.
        priority: lower goes first.
    """

    id: str
    sampling: Sampling
    role: str = ""
    tokens: tuple[int, ...] = ()
    messages: tuple[Message, ...] = ()
    text: str = ""
    references: tuple[str, ...] = ()
    deadline_s: float = 120.0
    priority: int = 0
    adapter: str = ""


@dataclass(frozen=True)
class Candidate:
    """One of a request's answers; `finish_reason` is `stop` or `length`."""

    text: str
    finish_reason: str
    tokens: int
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no candidates.

    Attributes:
        kind: `overflow` (the prompt does not fit the window) and `refused` (the engine will never
            take it) are never tried again; `deadline`, `aborted` and `unavailable` may be.
    """

    kind: Literal["overflow", "refused", "deadline", "aborted", "unavailable"]
    message: str

    @property
    def permanent(self) -> bool:
        """Whether trying again cannot help."""
        return self.kind in ("overflow", "refused")


@dataclass(frozen=True)
class Answer:
    """What came of one request: candidates, or the failure."""

    id: str
    candidates: tuple[Candidate, ...] = ()
    failure: Failure | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    replica: str = ""


def replica_name(engine: str, number: int) -> str:
    """Return the name of an engine's replica."""
    return f"{engine}-{number}"


def engine_of(replica: str) -> str:
    """Return the engine's name of a replica's, the inverse of `replica_name`."""
    return replica.rpartition("-")[0]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What a started engine is.

    Attributes:
        window: the most tokens of prompt and answer together; 0 when unknown.
        max_running: how many candidates it decodes at once; admission never goes above it.
        tokenizer: a local folder or name that `transformers.AutoTokenizer` loads; empty unless it
            takes tokens.
        adapters: requests may name one.
        remote: documents leave the machine.
    """

    model: str
    takes: Takes
    window: int
    max_running: int
    tokenizer: str = ""
    adapters: bool = False
    remote: bool = False
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A replica's counters since its start, and its load now.

    Attributes:
        running: candidates that it decodes; `waiting`: requests that it has not begun.
        limit: of its admission now, in candidates; 0 while it loads.
        overdue: of those that failed, the requests whose deadline came first.
        queue_s, prefill_s, decode_s: of all answers together.
        away: why it answers no requests now, in words; empty when all is well.
    """

    running: int = 0
    waiting: int = 0
    limit: int = 0
    finished: int = 0
    failed: int = 0
    overdue: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    kv_cache_use: float = 0.0
    preemptions: int = 0
    away: str = ""


class Load(NamedTuple):
    """What a replica tells a client with every answer, in places (one a candidate).

    Attributes:
        others: that the requests of other clients take or wait for.
        limit: of its admission, now.
    """

    others: int
    limit: int


@dataclass(frozen=True, slots=True)
class Polled:
    """What a replica tells a client.

    Attributes:
        load: as it is now.
        answers: with their sequence numbers, in the order they finished.
    """

    incarnation: str
    load: Load
    answers: tuple[tuple[int, Answer], ...] = ()


class Later(Exception):
    """A backend could not answer a request now: the replica sends it again, a few times.

    Attributes:
        at_once: as soon as the backend admits it, rather than after a pause that grows.
    """

    def __init__(self, why: str, at_once: bool = False) -> None:
        super().__init__(why)
        self.at_once = at_once


class Backend(Protocol):
    """A model behind a replica: it answers one request at a time, many at once."""

    async def start(self) -> EngineInfo:
        """Load the model. Raises EngineError with one clear message when that cannot be."""

    def admit(self) -> float:
        """Let one more request begin and return 0, or return the seconds until one may."""

    async def generate(self, request: Request) -> Answer:
        """Answer one request that was admitted; failures are answers.

        Raises:
            Later: it may succeed at another time.
            EngineError: the backend has died.
        """

    async def abort(self, request_ids: Sequence[str]) -> None:
        """Stop working on these requests; unknown ids are ignored."""

    def stats(self) -> EngineStats:
        """Return the load now, without waiting."""

    async def reset_cache(self) -> None:
        """Empty the prefix cache, for measurements from a cold start."""

    async def stop(self) -> None:
        """Release the model and its processes; safe to call twice."""


class Replica(Protocol):
    """One replica of an engine, as its clients see it (a Ray actor has the same methods)."""

    async def start(self) -> EngineInfo:
        """Load the model; idempotent."""

    async def submit(self, client: str, requests: Sequence[Request]) -> Polled:
        """Take a micro-batch, without waiting for its answers; returns none, but the load."""

    async def poll(self, client: str, acknowledged: int, timeout_s: float) -> Polled:
        """Return what has finished since `acknowledged`, or nothing after `timeout_s` seconds."""

    async def abort(self, client: str, request_ids: Sequence[str]) -> None:
        """Stop working on these requests of the client."""

    async def stats(self) -> EngineStats:
        """Return the load and the counters."""

    async def reset_cache(self) -> None:
        """Empty the prefix cache."""

    async def stop(self) -> None:
        """Release the model and its processes."""


def dead(message: str) -> EngineError:
    """Return the error of an engine that has died and may come back."""
    return EngineError(message, permanent=False)


Scope = dict[str, Any]
"""The names that a domain's expressions and templates see."""
