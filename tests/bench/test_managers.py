"""How often each manager finds the edge of a held-out reply, and how long it takes.

The replies (`data/held_out_replies.jsonl`) were written without a look at the references; a tenth
of them fit no edge. Likeness is measured at several thresholds, with the default one marked.

    make bench PYTEST_ARGS='-k managers'
    DUOLOGUE_BENCH_MANAGER=/path/to/model.gguf make bench PYTEST_ARGS='-k managers'
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors.engines.models import load_tokenizer
from actors.manager import (
    COSINE,
    ROUGE,
    EmbeddingManager,
    Manager,
    ModelManager,
    Option,
    Question,
    RougeManager,
    Verdict,
)
from actors.meaning import able
from actors.retrieval.embedding import load_embedder
from actors.seat import Seat
from cluster.single_engine import started
from specs.domain import Domain
from specs.engine_section import EngineSection, Profile
from specs.loader import open_domain
from specs.plan import PlanSource, make_plan
from specs.scene import Scene
from specs.words import holds, words

REPLIES = Path(__file__).parent / "data" / "held_out_replies.jsonl"
MODEL = os.environ.get("DUOLOGUE_BENCH_MANAGER", "smollm2-135m")
THRESHOLDS = (0.1, 0.2, 0.3, 0.33, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Item:
    """A reply, its open edges, and the intent that it has; None where it fits none."""

    question: Question
    intent: str | None
    domain: Domain


def items() -> list[Item]:
    domains = {name: open_domain(name) for name in ("tavern", "healer")}
    found = []
    for number, line in enumerate(REPLIES.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        domain = domains[row["domain"]]
        scope = Scene(domain, make_plan(domain, PlanSource(0), number)).scope()
        edges = domain.edges_from(row["state"])
        options = tuple(
            Option(e.number, tuple(r.say.render(scope) for r in e.speech.references)) for e in edges
        )
        say = domain.states[row["state"]].speech.references[0].say.render(scope)
        names = (domain.agent.name, domain.user.name)
        closes = partial(holds, phrases=[words(one) for one in domain.closing])
        may = tuple(able(row["reply"], options, closes))
        asked = Question(f"q{number}:0:route", number, row["reply"], say, names, may)
        found.append(Item(asked, row["intent"], domain))
    return found


@dataclass(frozen=True)
class Score:
    """Shares of right verdicts: of all, of replies with an intent, of those without."""

    everything: float
    routed: float
    none: float


def score(found: Sequence[Item], edges: Sequence[int | None]) -> Score:
    right = [
        (item.domain.edges[edge].intent if edge is not None else None) == item.intent
        for item, edge in zip(found, edges, strict=True)
    ]
    routed = [one for one, item in zip(right, found, strict=True) if item.intent is not None]
    none = [one for one, item in zip(right, found, strict=True) if item.intent is None]
    return Score(*(sum(some) / len(some) for some in (right, routed, none)))


async def one_by_one(manager: Manager, found: Sequence[Item]) -> tuple[list[Any], float]:
    """Return the verdicts, and milliseconds each when they come one after the other."""
    began = time.monotonic()
    verdicts = [await manager.route(item.question) for item in found]
    return verdicts, 1000 * (time.monotonic() - began) / len(found)


def of(
    found: Sequence[Item], verdicts: Sequence[Verdict], name: str
) -> tuple[list[Item], list[Verdict]]:
    """Return the items of one domain, with their verdicts."""
    here = [place for place, item in enumerate(found) if item.domain.name == name]
    return [found[place] for place in here], [verdicts[place] for place in here]


def routed_at(
    threshold: float, found: Sequence[Item], verdicts: Sequence[Verdict]
) -> tuple[Sequence[Item], list[int | None]]:
    """Return the edges that replies take from a threshold on."""
    return found, [v.edge if (v.score or 0) >= threshold else None for v in verdicts]


def best(found: Sequence[Item], verdicts: Sequence[Verdict]) -> float:
    """Return the threshold with the most right verdicts, the greatest of equals."""
    grid = [place / 100 for place in range(5, 80)]
    return max(grid, key=lambda one: (score(*routed_at(one, found, verdicts)).everything, one))


async def measure(say: Any) -> None:
    found = items()
    embedder = load_embedder("minilm")

    async def embed(texts: tuple[str, ...]) -> Any:
        return embedder.encode(texts)

    say(f"\nmanagers: {len(found)} held-out replies")
    kinds: list[tuple[str, float, Manager]] = [
        ("rouge", ROUGE, RougeManager(0.0)),
        ("embedding", COSINE, EmbeddingManager(embed, 0.0)),
    ]
    for name, default, manager in kinds:
        await one_by_one(manager, found)  # references are embedded once in a run
        verdicts, each = await one_by_one(manager, found)
        say(f"  {name}: {each:.2f} ms a reply")
        for threshold in THRESHOLDS:
            told = score(*routed_at(threshold, found, verdicts))
            mark = "  (default)" if threshold == default else ""
            say(
                f"    {threshold:.2f}: {told.everything:.3f} right, {told.routed:.3f} of those "
                f"with an edge, {told.none:.3f} of those without{mark}"
            )
        for chosen, reported in (("tavern", "healer"), ("healer", "tavern")):
            threshold = best(*of(found, verdicts, chosen))
            told = score(*routed_at(threshold, *of(found, verdicts, reported)))
            say(
                f"    chosen on {chosen}, {threshold:.2f}: on {reported} {told.everything:.3f} "
                f"right, {told.routed:.3f} of those with an edge, {told.none:.3f} of those without"
            )
    config = EngineSection(model=MODEL, window=2048, max_running=16, kv_cache_gb=1.0)
    async with started(config, "manager") as (client, info):
        tokenizer = load_tokenizer(info.tokenizer) if info.takes == "tokens" else None
        for form in ("script", "chat"):
            seat = Seat(client, info, Profile(form=form), tokenizer)
            asked = [
                replace(item, question=replace(item.question, id=f"{form}:{item.question.id}"))
                for item in found
            ]
            verdicts, each = await one_by_one(ModelManager(seat), asked)
            told = score(found, [verdict.edge for verdict in verdicts])
            say(
                f"  model {Path(MODEL).name}, {form}: {each:.0f} ms a reply; "
                f"{told.everything:.3f} right, {told.routed:.3f} of those with an edge, "
                f"{told.none:.3f} of those without"
            )


def test_managers(capsys: pytest.CaptureFixture[str]) -> None:
    def say(text: str) -> None:
        with capsys.disabled():
            print(text)

    asyncio.run(measure(say))
