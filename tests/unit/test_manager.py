"""Managers: which edge a free reply takes, and when it takes none."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from actors.manager import (
    EmbeddingManager,
    ModelManager,
    Option,
    Question,
    RougeManager,
    choice_prompt,
    make_manager,
)
from actors.retrieval.embedding import LexicalEmbedder
from actors.seat import Seat
from specs.engine import Answer, Candidate, EngineInfo, Failure, Request
from specs.engine_section import Profile
from specs.errors import InputError, RetrievalError, Unavailable
from specs.run_file import PolicySection, validate

YES = Option(4, ("Yes, please.", "I would love some."))
NO = Option(7, ("No, thank you.", "Not for me."))


def question(reply: str, *options: Option) -> Question:
    return Question("w:1:route", 7, reply, "Some tea?", ("keeper", "guest"), options)


async def embed(texts: tuple[str, ...]) -> Any:
    return LexicalEmbedder().encode(texts)


@pytest.mark.parametrize("manager", [RougeManager(), EmbeddingManager(embed)])
@pytest.mark.parametrize(
    ("reply", "edge"),
    [
        ("Yes please!", 4),
        ("Oh, I would love some.", 4),
        ("No thank you.", 7),
        ("Is it raining still?", None),
    ],
)
async def test_likeness_finds_the_edge(manager: Any, reply: str, edge: int | None) -> None:
    verdict = await manager.route(question(reply, YES, NO))
    assert verdict.edge == edge
    assert 0 <= verdict.score <= 1
    assert bool(verdict.text) is (edge is not None)
    assert (await manager.route(question(reply))).edge is None


async def test_of_equals_the_first_wins_and_the_threshold_counts() -> None:
    twin = Option(9, YES.texts)
    assert (await RougeManager().route(question("Yes, please.", YES, twin))).edge == 4
    assert (await RougeManager().route(question("Yes, please.", twin, YES))).edge == 9
    half = question("Yes, of course.", YES)
    score = (await RougeManager(0.0).route(half)).score
    assert score == pytest.approx(2 * 1 / (3 + 2), abs=1e-4)
    assert (await RougeManager(0.4).route(half)).edge == 4
    assert (await RougeManager(0.41).route(half)).edge is None


async def test_references_are_embedded_once() -> None:
    asked: list[tuple[str, ...]] = []

    async def counting(texts: tuple[str, ...]) -> Any:
        asked.append(texts)
        return np.eye(8, dtype=np.float32)[: len(texts)]

    manager = EmbeddingManager(counting)
    await manager.route(question("One.", YES))
    await manager.route(question("Two.", YES, NO))
    assert asked == [("One.", *YES.texts), ("Two.", *NO.texts)]


async def test_a_retriever_that_is_away_gives_no_verdict() -> None:
    async def away(texts: tuple[str, ...]) -> Any:
        raise RetrievalError("the retriever has not answered")

    with pytest.raises(Unavailable, match="has not answered"):
        await EmbeddingManager(away).route(question("Yes, please.", YES, NO))


class Chooses:
    """Names a number."""

    def __init__(self, said: str, failure: Failure | None = None) -> None:
        self.said, self.failure = said, failure
        self.requests: list[Request] = []
        self.released: list[str] = []

    async def ask(self, request: Request, dialogue: str) -> Answer:
        self.requests.append(request)
        if self.failure is not None:
            return Answer(request.id, failure=self.failure)
        return Answer(request.id, (Candidate(self.said, "stop", 1),), completion_tokens=1)

    def release(self, dialogue: str) -> None:
        self.released.append(dialogue)


def model(client: Chooses, form: Any = "chat") -> ModelManager:
    info = EngineInfo("tiny", "messages", 0, 1)
    return ModelManager(Seat(client, info, Profile(form=form)))


@pytest.mark.parametrize("form", ["chat", "script"])
async def test_a_model_names_a_number(form: Any) -> None:
    client = Chooses(" 2")
    verdict = await model(client, form).route(question("Not me.", YES, NO))
    assert (verdict.edge, verdict.score, verdict.tokens) == (7, None, 1)
    [request] = client.requests
    assert request.sampling.temperature == 0
    assert request.priority == 7
    assert client.released == [request.id]  # nothing sticks
    assert json.loads(request.sampling.schema or "")["enum"] == [0, 1, 2]
    prompt = choice_prompt(question("Not me.", YES, NO), form).exact()
    for part in ("keeper: Some tea?", "guest: Not me.", "1. Yes, please.", "2. No, thank you."):
        assert part in prompt


@pytest.mark.parametrize("said", ["0", "3", "-1", "two", "", "true", "[1]", "1.5"])
async def test_what_is_no_options_number_is_none_of_them(said: str) -> None:
    assert (await model(Chooses(said)).route(question("Hm.", YES, NO))).edge is None


async def test_a_model_that_is_away_gives_no_verdict() -> None:
    away = model(Chooses("1", Failure("unavailable", "gone")))
    with pytest.raises(Unavailable, match="gone"):
        await away.route(question("Hm.", YES))
    full = model(Chooses("1", Failure("overflow", "too long")))
    assert (await full.route(question("Hm.", YES))).edge is None


def test_a_run_file_names_the_manager() -> None:
    assert isinstance(make_manager(PolicySection(manager="rouge"), embed, None), RougeManager)
    found = make_manager(PolicySection(manager="embedding", threshold=0.7), embed, None)
    assert isinstance(found, EmbeddingManager)
    assert found.threshold == 0.7
    data: dict[str, Any] = {
        "run": {"name": "t"},
        "domain": {"path": "tavern"},
        "engines": {"ref": {"kind": "reference"}},
        "roles": {"user": "ref", "agent": "ref"},
        "policy": {"kind": "routed", "manager": "model"},
    }
    with pytest.raises(InputError, match=r"needs an engine: set roles\.manager"):
        validate(data, "run.toml")
    data["roles"]["manager"] = "ref"
    with pytest.raises(InputError, match="reference engine, which cannot choose"):
        validate(data, "run.toml")
    data["roles"]["manager"] = "reff"
    with pytest.raises(InputError, match="did you mean 'ref'"):
        validate(data, "run.toml")
    data["policy"]["manager"] = "rouge"
    data["roles"].pop("manager")
    assert validate(data, "run.toml").speaking_engines == ("ref",)
