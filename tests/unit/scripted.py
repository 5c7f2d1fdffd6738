"""A client that answers as a test says, by turn and attempt, and notes what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from actors.cast import Cast
from actors.retrieval.sampled import SampledTools
from actors.seat import Seat
from specs.domain import Domain, Side
from specs.engine import Answer, Candidate, EngineInfo, Failure, Request
from specs.engine_section import Profile
from specs.plan import PlanSource
from specs.scene import Calling, CallResult, Scene

START = datetime(2024, 5, 1, tzinfo=UTC)

Answers = Mapping[tuple[int, int], Sequence[str] | Failure]


@dataclass
class Scripted:
    """Answers with what `answers` has for (turn, attempt), else with what passes every check."""

    answers: Answers = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    async def ask(self, request: Request, dialogue: str) -> Answer:
        self.requests.append(request)
        assert request.id.startswith(f"{dialogue}:")
        said = self.answers.get(place(request), [good(request)] * request.sampling.n)
        if isinstance(said, Failure):
            return Answer(request.id, failure=said)
        candidates = tuple(
            Candidate(text.removesuffix("..."), "length" if text.endswith("...") else "stop", 7)
            for text in said
        )
        return Answer(
            request.id,
            candidates,
            completion_tokens=7 * len(candidates),
            prompt_tokens=50,
            cached_tokens=20,
            replica="r-1",
        )

    def release(self, dialogue: str) -> None:
        self.released.append(dialogue)

    def places(self) -> list[tuple[int, int]]:
        return [place(request) for request in self.requests]


def place(request: Request) -> tuple[int, int]:
    """Return the turn and the attempt of a request."""
    _, turn, attempt = request.id.split(":")
    return int(turn), int(attempt)


def shown(request: Request) -> str:
    """Return the prompt of a request, as people read it."""
    return request.text or "\n".join(f"[{m.role}]\n{m.content}" for m in request.messages)


def good(request: Request) -> str:
    """Return what passes every check of the tiny domain: the instruction interrupted, numbered."""
    lines = shown(request).split("\n")
    if request.text:
        instruction = next(i for i in reversed(lines) if i.startswith("In")).partition(": ")[2]
    else:
        instruction = next(i for i in reversed(lines) if i.startswith("[") and "failed" not in i)[
            1:-1
        ]
    told = instruction.rstrip(".").split()
    interrupted = " ".join(f"{word} then" if n % 3 == 2 else word for n, word in enumerate(told))
    said = f"{request.sampling.seed % 9973 + 100} {interrupted}"  # to recite it is a failure
    slots: dict[str, Any] = {
        "query": instruction.removeprefix("Ask for ").rstrip("."),
        "cups": 4,
        "shown": ["t0"],
    }
    if request.sampling.schema is not None:
        asked = json.loads(request.sampling.schema)["required"]
        return json.dumps({**{name: slots[name] for name in asked[:-1]}, "text": said})
    if not request.text or lines[-1].rstrip(":") not in slots:
        return f" {said}"
    value = slots[lines[-1].rstrip(":")]
    name = "keeper" if lines[-1] == "shown:" else "guest"
    return f" {json.dumps(value) if not isinstance(value, str) else value}\n{name}: {said}"


class Calls:
    """Drawn documents and outcomes; similarity as the test says. Notes what it was asked."""

    def __init__(self, domain: Domain, similar: Callable[[str], float] = lambda text: 1.0) -> None:
        self._tools = SampledTools(domain)
        self._similar = similar
        self.calls: list[Calling] = []
        self.compared: list[tuple[str, tuple[str, ...]]] = []

    async def call(self, calling: Calling, scene: Scene) -> CallResult:
        self.calls.append(calling)
        return self._tools(calling, scene.scope())

    async def similarity(self, text: str, references: Sequence[str]) -> float:
        self.compared.append((text, tuple(references)))
        return self._similar(text)


@dataclass(frozen=True)
class Letters:
    """A tokenizer of one token a letter."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        return [
            ord(c) for message in conversation for c in f"<{message['role']}>{message['content']}"
        ]

    def encode(self, text: str, **options: Any) -> list[int]:
        return [ord(character) for character in text]


def make_cast(domain: Domain, *clients: Any, **keys: Any) -> Cast:
    """Return a cast whose user and agent have these clients (one for both, or one each)."""
    profile = keys.pop("profile", Profile(form="script", candidates=(1, 2)))
    info = EngineInfo("tiny-model", keys.pop("takes", "messages"), keys.pop("window", 0), 8)
    tokenizer = keys.pop("tokenizer", None)
    seats: dict[Side, Seat] = {
        "user": Seat(clients[0], info, profile, tokenizer),
        "agent": Seat(clients[-1], info, profile, tokenizer),
    }
    return Cast(
        domain=domain,
        source=keys.pop("source", PlanSource(0)),
        run="test",
        seats=seats,
        caller=keys.pop("caller", None) or Calls(domain),
        max_turns=keys.pop("max_turns", domain.max_turns),
        now=lambda: START,
        **keys,
    )
