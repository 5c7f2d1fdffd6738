"""How much of the prompts comes from the prefix cache: sticky routing beside turn and turn about.

make bench PYTEST_ARGS='-k prefix_cache'
DUOLOGUE_BENCH_FORM=script DUOLOGUE_BENCH_DIALOGUES=48 make bench PYTEST_ARGS='-k prefix_cache'

Two replicas of SmolLM2-135M in vLLM on the CPU, one core each, play the same plans, each way from
empty caches. What a replica can know of a dialogue is its persona and goal, and the history behind
the examples where a state says several turns in a row: so the prompts here have both, as those of a
larger model would. Round robin is put in place here only.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import ray

import actors.engines.client
from actors.caller import ToolCaller
from actors.cast import Cast
from actors.engines.client import EngineClient
from actors.engines.models import load_tokenizer
from actors.engines.ray_replica import RayReplica
from actors.engines.replica_actor import ReplicaActor
from actors.engines.routing import Router
from actors.retrieval.retriever import LocalRetriever
from actors.retrieval.store import Corpus
from actors.seat import Seat
from actors.walker import Walker
from specs.domain import Domain, Side
from specs.engine import EngineInfo, EngineStats
from specs.lease import Lease
from specs.loader import open_domain
from specs.plan import PlanSource
from specs.run_file import RetrievalSection, RunFile, load
from tests.bench.test_orchestration import Endless, Forgetful
from tests.bench.test_scale import commit

DIALOGUES = int(os.environ.get("DUOLOGUE_BENCH_DIALOGUES", "24"))
TURNS = int(os.environ.get("DUOLOGUE_BENCH_TURNS", "12"))
ALIVE = int(os.environ.get("DUOLOGUE_BENCH_ALIVE", "12"))
FORM = os.environ.get("DUOLOGUE_BENCH_FORM", "chat")
NAMES = ("cpu-0", "cpu-1")
SETTINGS = (
    "engines.cpu.cpu_cores=1",
    "engines.cpu.kv_cache_gb=1.0",
    f"engines.cpu.profile.form={FORM}",
    "engines.cpu.profile.persona=true",
    "engines.cpu.profile.history=8",
    "engines.cpu.profile.examples=2",
    "engines.cpu.profile.candidates=[1, 0]",
    "engines.cpu.profile.max_tokens=40",
)


class RoundRobin(Router):
    """Gives every turn to the next replica, whatever its side had before."""

    _turns = 0

    def route(self, dialogue: Hashable, role: str = "") -> str:
        super().route(dialogue, role)
        self._turns += 1
        name = self.members[self._turns % len(self.members)]
        self.move(dialogue, role, name)
        return name


class Few(Endless):
    """A ledger with so many dialogues."""

    async def lease(self, walker: str, want: int) -> Sequence[Lease]:
        return await super().lease(walker, max(0, min(want, DIALOGUES - self.next)))

    async def complete(self) -> bool:
        return True


@dataclass(frozen=True)
class Bench:
    """What both ways of routing share."""

    domain: Domain
    run: RunFile
    replicas: Mapping[str, RayReplica]
    info: EngineInfo
    retriever: LocalRetriever
    tokenizer: Any

    async def play(self) -> tuple[EngineStats, float, Forgetful]:
        """Return what the replicas did, the seconds, and what was played."""
        for replica in self.replicas.values():
            await replica.reset_cache()
        before = await self._stats()
        client = EngineClient(self.replicas, "bench")
        seat = Seat(client, self.info, self.run.engines["cpu"].profile, self.tokenizer)
        seats: dict[Side, Seat] = {"user": seat, "agent": seat}
        caller = ToolCaller(self.domain, self.retriever)
        source = PlanSource(self.run.run.seed)
        cast = Cast(self.domain, source, "bench", seats, caller, max_turns=TURNS)
        sinks = Forgetful()
        began = time.monotonic()
        await Walker("bench", cast, Few(), sinks, ALIVE).run()
        seconds = time.monotonic() - began
        await client.close()
        after = await self._stats()
        names = ("prompt_tokens", "cached_tokens", "completion_tokens", "finished")
        done = {name: getattr(after, name) - getattr(before, name) for name in names}
        return replace(EngineStats(), **done), seconds, sinks

    async def _stats(self) -> EngineStats:
        found = [await replica.stats() for replica in self.replicas.values()]
        names = ("prompt_tokens", "cached_tokens", "completion_tokens", "finished")
        sums = {name: sum(getattr(one, name) for one in found) for name in names}
        return replace(EngineStats(), **sums)


@pytest.fixture
def bench() -> Iterator[Bench]:
    run, domain = load("specs/runs/demo.toml", SETTINGS), open_domain("recipe")
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        make: Any = ray.remote(ReplicaActor).options(num_cpus=0, max_concurrency=4000)
        handles = {name: make.remote(run.engines["cpu"], name) for name in NAMES}
        info, _ = ray.get([handle.start.remote() for handle in handles.values()])
        replicas = {name: RayReplica(handle) for name, handle in handles.items()}
        corpus = Corpus.of(domain.documents)
        retriever = LocalRetriever(corpus, RetrievalSection(embedding="lexical"))
        yield Bench(domain, run, replicas, info, retriever, load_tokenizer("smollm2-135m"))
    finally:
        ray.shutdown()


def test_prefix_cache(bench: Bench, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(measure(bench, capsys, monkeypatch))


async def measure(bench: Bench, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.retriever.start()
    with capsys.disabled():
        print(
            f"\nprefix cache, commit {commit().strip()}: {DIALOGUES} dialogues of up to {TURNS} "
            f"turns, {ALIVE} alive, {FORM} form, two replicas"
        )
    for name, router in (("sticky", Router), ("round robin", RoundRobin)):
        monkeypatch.setattr(actors.engines.client, "Router", router)
        done, seconds, sinks = await bench.play()
        assert sinks.dialogues == DIALOGUES
        with capsys.disabled():
            print(
                f"  {name:>11}: {done.cached_tokens / done.prompt_tokens:.3f} of "
                f"{done.prompt_tokens} prompt tokens from the cache, "
                f"{done.completion_tokens} written, {sinks.turns} turns in {seconds:.0f} s: "
                f"{sinks.turns / seconds:.2f} turns/s",
                flush=True,
            )
