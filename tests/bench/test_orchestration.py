"""Orchestration without a model: turns a second, CPU a turn by component, memory a live dialogue.

The reference engine answers after 20 to 200 ms, in a process of its own (a Ray actor), to one
walker that keeps 5,000 dialogues of the recipe domain alive. Prints figures; never fails on time.
"""

import asyncio
import contextlib
import cProfile
import os
import pstats
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import ray

from actors.cast import Cast
from actors.conversation import Conversation
from actors.dry_run import Drawn
from actors.engines.client import EngineClient
from actors.engines.models import load_tokenizer
from actors.engines.ray_replica import RayReplica
from actors.engines.replica_actor import ReplicaActor
from actors.retrieval.sampled import SampledTools
from actors.seat import Client, Seat
from actors.walker import Walker
from actors.walker_actor import calm_collector
from specs.domain import Domain, Side
from specs.engine import Answer, Candidate, EngineInfo, Request
from specs.engine_section import EngineSection, Profile, ReferenceFaults
from specs.lease import Blame, Lease
from specs.loader import open_domain
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, Turn

ALIVE = int(os.environ.get("DUOLOGUE_BENCH_ALIVE", "5000"))
SECONDS = float(os.environ.get("DUOLOGUE_BENCH_SECONDS", "20"))
WARM_S = float(os.environ.get("DUOLOGUE_BENCH_WARM_S", "30"))
PROFILE = Profile(form="script", history=4, examples=3, persona=False, repair=False)


class Endless:
    """A ledger that always has another index."""

    def __init__(self) -> None:
        self.next = 0

    async def lease(self, walker: str, want: int) -> Sequence[Lease]:
        first, self.next = self.next, self.next + want
        return [Lease(index, 1, 1) for index in range(first, self.next)]

    async def renew(self, walker: str, leases: Sequence[Lease]) -> Sequence[Lease]:
        return ()

    async def done(self, index: int, epoch: int) -> None: ...

    async def failed(self, index: int, epoch: int, reason: str, blame: Blame) -> None: ...

    async def superseded(self, index: int, epoch: int, seen: int) -> None: ...

    async def release(self, walker: str) -> None: ...

    async def complete(self) -> bool:
        return False


@dataclass
class Forgetful:
    """Sinks that keep nothing but counts."""

    turns: int = 0
    dialogues: int = 0
    lengths: list[int] = field(default_factory=list)

    async def begin(self, index: int, walk_id: str, epoch: int) -> Sequence[Turn]:
        return ()

    async def turn(self, index: int, walk_id: str, epoch: int, turn: Turn) -> None:
        self.turns += 1

    async def finish(self, dialogue: Dialogue, epoch: int) -> None:
        self.dialogues += 1
        self.lengths.append(len(dialogue.turns))


def make_cast(domain: Domain, client: Client, info: EngineInfo, tokenizer: Any) -> Cast:
    seat = Seat(client, replace(info, takes="references"), PROFILE, tokenizer)
    seats: dict[Side, Seat] = {"user": seat, "agent": seat}
    return Cast(
        domain=domain,
        source=PlanSource(0),
        run="bench",
        seats=seats,
        caller=Drawn(SampledTools(domain)),
        max_turns=domain.max_turns,
    )


async def play(domain: Domain, replicas: dict[str, RayReplica], tokenizer: Any) -> dict[str, float]:
    client = EngineClient(replicas, f"bench-{time.monotonic_ns()}")
    info = EngineInfo("reference", "references", 0, 100_000)
    sinks = Forgetful()
    calm_collector()  # as in a walker's own process
    process = psutil.Process()
    before_bytes = process.memory_info().rss
    walker = Walker("bench", make_cast(domain, client, info, tokenizer), Endless(), sinks, ALIVE)
    running = asyncio.create_task(walker.run())
    await asyncio.sleep(WARM_S)  # everything is alive and in its stride
    began, cpu, turns = time.monotonic(), time.process_time(), sinks.turns
    await asyncio.sleep(SECONDS)
    seconds, used = time.monotonic() - began, time.process_time() - cpu
    made = sinks.turns - turns
    grown = process.memory_info().rss - before_bytes
    walker.stop()
    await running
    await client.close()
    return {
        "turns_s": made / seconds,
        "cpu_ms": 1000 * used / max(made, 1),
        "bytes": grown / ALIVE,
        "busy": used / seconds,
    }


COMPONENTS = {
    "edges, sets, calls": ("scene.py", ("draw_edge", "take", "begin", "settle", "send")),
    "instruction and references": ("expressions.py", ("render",)),
    "prompt": ("prompts.py", ("render", "parse", "complete")),
    "checks": ("checks.py", ("run_checks",)),
    "tokenizing": ("seat.py", ("encode",)),
    "digests and seeds": ("seeds.py", ("digest",)),
    "documents drawn": ("sampled.py", ("__call__",)),
}
"""A component's functions, by file; their time with all that they call."""


class Instant:
    """An engine that answers at once, for looking at everything else."""

    async def ask(self, request: Request, dialogue: str) -> Answer:
        await asyncio.sleep(0)
        return Answer(request.id, (Candidate(request.references[0], "stop", 12),))

    def release(self, dialogue: str) -> None: ...


async def shares(domain: Domain, tokenizer: Any) -> dict[str, float]:
    """Return each component's share of the walker's CPU, by the profiler (which inflates calls)."""
    info = EngineInfo("reference", "references", 0, 100_000)
    cast = make_cast(domain, Instant(), info, tokenizer)

    def dialogues() -> list[Any]:
        return [Conversation(cast, make_plan(domain, cast.source, i)).play() for i in range(40)]

    await asyncio.gather(*dialogues())
    profile = cProfile.Profile()
    profile.enable()
    await asyncio.gather(*dialogues())
    profile.disable()
    rows: Any = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(row[2] for row in rows.values())
    found = dict.fromkeys(COMPONENTS, 0.0)
    for (path, _, function), row in rows.items():
        for name, (file, functions) in COMPONENTS.items():
            if path.endswith(f"/{file}") and function in functions:
                found[name] += row[3] / total
    return found


@contextlib.contextmanager
def reference_engine() -> Iterator[dict[str, RayReplica]]:
    """A Ray of its own, and the reference engine in a process, answering after 20 to 200 ms."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        section = EngineSection(
            kind="reference", max_running=100_000, faults=ReferenceFaults(latency_s=(0.02, 0.2))
        )
        make: Any = ray.remote(ReplicaActor).options(num_cpus=0, max_concurrency=4000)
        handle: Any = make.remote(section, "bench-0")
        ray.get(handle.start.remote())
        yield {"bench-0": RayReplica(handle)}
    finally:
        ray.shutdown()


def test_orchestration(capsys: Any) -> None:
    domain = open_domain("recipe")
    tokenizer = load_tokenizer("smollm2-135m")
    with reference_engine() as replicas:
        for name, used in (("without tokenizing", None), ("with tokenizing", tokenizer)):
            figures = asyncio.run(play(domain, replicas, used))
            with capsys.disabled():
                print(
                    f"\norchestration {name}: {figures['turns_s']:.0f} turns/s with {ALIVE} alive "
                    f"in one walker, {figures['cpu_ms']:.3f} ms CPU a turn in the walker "
                    f"({figures['busy']:.0%} of a core), {figures['bytes']:.0f} bytes a dialogue"
                )
                for part, share in asyncio.run(shares(domain, used)).items():
                    print(f"  {part}: {share * figures['cpu_ms']:.3f} ms ({share:.0%})")
