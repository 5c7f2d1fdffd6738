"""Engine saturation: the whole system against the same engine given everything at once.

The system plays dialogues with a real engine, and every request it sends is recorded. The limit is
the same engine, its prefix cache cold, given the same requests all at once in dialogue order; the
steady part (past the first dialogues, and before there are none left to begin) has a limit of its
own: the requests that were answered in it, since requests of other states cost otherwise. Both
limits take the first play's requests.
The system plays once before its limits and once behind them, and both count: a machine whose pace
drifts over the minutes would otherwise be taken for a slow or a fast system.
Beside it, in the same run: as many dialogues alive as the engine decodes at once, a barrier after
every turn, and three dialogues at a time. Prints tokens a second and shares of the limit.

    DUOLOGUE_BENCH_DIALOGUES=240 make bench PYTEST_ARGS='-k saturation'
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.caller import ToolCaller
from actors.cast import Cast
from actors.engines.client import EngineClient
from actors.engines.models import load_tokenizer
from actors.engines.ray_replica import RayReplica
from actors.engines.replica_actor import ReplicaActor
from actors.ledger_client import RayLedger
from actors.retrieval.remote import RetrieverClient, start_actor
from actors.retrieval.store import Corpus
from actors.seat import Seat
from actors.sink import SINK_OPTIONS, SinkActor
from actors.sink_client import RaySinks
from actors.walker import Walker
from cluster.ledger_actor import LedgerActor
from specs.domain import Domain, Side
from specs.engine import Answer, EngineInfo, Request
from specs.loader import open_domain
from specs.parts import Folder
from specs.plan import PlanSource
from specs.run_file import RetrievalSection, RunFile, load

DIALOGUES = int(os.environ.get("DUOLOGUE_BENCH_DIALOGUES", "160"))
TURNS = int(os.environ.get("DUOLOGUE_BENCH_TURNS", "12"))
RUNNING = int(os.environ.get("DUOLOGUE_BENCH_RUNNING", "32"))
ALIVE = int(os.environ.get("DUOLOGUE_BENCH_ALIVE", str(3 * RUNNING)))


@dataclass
class Recording:
    """A client that notes what it was asked, and when how many tokens came back."""

    client: EngineClient
    asked: list[tuple[int, Request]] = field(default_factory=list)
    done: list[tuple[float, int]] = field(default_factory=list)
    answered: list[tuple[int, Request]] = field(default_factory=list)
    barrier: Callable[[], Any] | None = None

    async def ask(self, request: Request, dialogue: str) -> Answer:
        self.asked.append((request.priority, request))
        if self.barrier is not None:
            await self.barrier()
        answer = await self.client.ask(request, dialogue)
        self.done.append((time.monotonic(), answer.completion_tokens))
        self.answered.append((request.priority, request))
        return answer

    def between(self, first: float, last: float) -> tuple[list[Request], int]:
        """Return what was answered in a stretch of time, in dialogue order, and its tokens."""
        inside = [place for place, (at, _) in enumerate(self.done) if first < at <= last]
        pairs = sorted((self.answered[place] for place in inside), key=lambda pair: pair[0])
        return [request for _, request in pairs], sum(self.done[place][1] for place in inside)

    def release(self, dialogue: str) -> None:
        self.client.release(dialogue)


@dataclass(frozen=True)
class Figures:
    """What one way of playing came to: tokens and seconds."""

    tokens: int
    seconds: float

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def figures(began: float, done: Sequence[tuple[float, int]]) -> Figures:
    """Return the figures from the first request to the last answer."""
    return Figures(sum(tokens for _, tokens in done), done[-1][0] - began)


def together(several: Sequence[Figures]) -> Figures:
    """Return what several came to in all."""
    return Figures(sum(one.tokens for one in several), sum(one.seconds for one in several))


class Barrier:
    """Lets requests through when everybody who is alive has one: a turn barrier."""

    def __init__(self, alive: Callable[[], int]) -> None:
        self._alive = alive
        self._waiting = 0
        self._open = asyncio.Event()

    async def __call__(self) -> None:
        self._waiting += 1
        gate = self._open
        while not gate.is_set():
            if self._waiting >= self._alive():
                self._waiting, self._open = 0, asyncio.Event()
                gate.set()
                return
            try:
                await asyncio.wait_for(gate.wait(), 0.05)
            except TimeoutError:
                continue


@dataclass
class Bench:
    """The actors that all ways of playing share."""

    domain: Domain
    run: RunFile
    engine: Any
    info: EngineInfo
    retriever: Any
    tokenizer: Any
    out: Path

    async def play(self, name: str, dialogues: int, alive: int, barrier: bool = False) -> Recording:
        await RayReplica(self.engine).reset_cache()
        client = EngineClient({"bench-0": RayReplica(self.engine)}, name)
        recording = Recording(client)
        section = self.run.engines["cpu"]
        seat = Seat(recording, self.info, section.profile, self.tokenizer)
        seats: dict[Side, Seat] = {"user": seat, "agent": seat}
        retriever = RetrieverClient(self.retriever, Corpus.of(self.domain.documents))
        caller = ToolCaller(self.domain, retriever)
        source = PlanSource(self.run.run.seed)
        cast = Cast(self.domain, source, name, seats, caller, max_turns=TURNS)
        sink_class: Any = ray.remote(SinkActor).options(**SINK_OPTIONS)
        folder = Folder.of(str(self.out / name))
        sink = sink_class.remote(folder, 0, 1)
        ledger_class: Any = ray.remote(LedgerActor).options(num_cpus=0)
        ledger = ledger_class.remote(folder, dialogues, 0)
        walker = Walker(name, cast, RayLedger(ledger), RaySinks([sink]), alive)
        if barrier:
            recording.barrier = Barrier(lambda: walker.stats.alive)
        await walker.run()
        await client.close()
        await sink.close.remote()
        return recording

    async def limit(self, requests: Sequence[Request]) -> Figures:
        """Give the engine all of it at once."""
        await RayReplica(self.engine).reset_cache()
        client = EngineClient({"bench-0": RayReplica(self.engine)}, "limit")
        recording = Recording(client)
        began = time.monotonic()
        await asyncio.gather(
            *(
                recording.ask(replace(r, id=f"limit:{r.id}", priority=i), str(i))
                for i, r in enumerate(requests)
            )
        )
        await client.close()
        return figures(began, recording.done)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    settings = [
        f"engines.cpu.max_running={RUNNING}",
        *os.environ.get("DUOLOGUE_BENCH_SET", "").split(),
    ]
    run = load("specs/runs/demo.toml", settings)
    domain = open_domain("recipe")
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    try:
        make: Any = ray.remote(ReplicaActor).options(
            num_cpus=0, num_gpus=run.engines["cpu"].gpus or 0, max_concurrency=4000
        )
        engine = make.remote(run.engines["cpu"], "bench-0")
        info = ray.get(engine.start.remote())
        retriever = start_actor(RetrievalSection())
        ray.get(retriever.start.remote(Corpus.of(domain.documents)))
        yield Bench(domain, run, engine, info, retriever, load_tokenizer("smollm2-135m"), tmp_path)
    finally:
        ray.shutdown()


def test_saturation(bench: Bench, capsys: Any) -> None:
    asyncio.run(measure(bench, capsys))


@dataclass(frozen=True)
class System:
    """One play of the whole system.

    Attributes:
        asked: all requests, in dialogue order; `inside`: those answered in the steady part.
    """

    whole: Figures
    steady: Figures
    asked: list[Request]
    inside: list[Request]


async def system(bench: Bench, name: str) -> System:
    began = time.monotonic()
    recording = await bench.play(name, DIALOGUES, ALIVE)
    whole = figures(began, recording.done)
    # Steady: past the first dialogues' lifetimes, and before the ledger runs dry.
    first = began + 0.15 * whole.seconds
    last = began + (1 - min(0.5, 1.2 * ALIVE / DIALOGUES)) * whole.seconds
    inside, tokens = recording.between(first, last)
    asked = [request for _, request in sorted(recording.asked, key=lambda pair: pair[0])]
    return System(whole, Figures(tokens, last - first), asked, inside)


async def measure(bench: Bench, capsys: Any) -> None:
    before = await system(bench, "before")
    limit = await bench.limit(before.asked)
    of_steady = await bench.limit(before.inside)
    behind = await system(bench, "behind")

    def tell(name: str, played: Sequence[Figures], most: Figures) -> None:
        with capsys.disabled():
            speeds = " and ".join(f"{one.speed:.1f}" for one in played)
            share = together(played).speed / most.speed
            print(f"  {name}: {speeds} of {most.speed:.1f} tokens/s, {share:.3f}")

    with capsys.disabled():
        print(
            f"\nsaturation: {DIALOGUES} dialogues of up to {TURNS} turns, {len(before.asked)} "
            f"requests, {before.whole.tokens} and {behind.whole.tokens} tokens written in "
            f"{before.whole.seconds:.0f} and {behind.whole.seconds:.0f} s, of them "
            f"{before.steady.seconds:.0f} and {behind.steady.seconds:.0f} s steady; engine of "
            f"{RUNNING}; before and behind the limit (all at once, cold cache)"
        )
    tell(f"{ALIVE} alive, steady", (before.steady, behind.steady), of_steady)
    tell(f"{ALIVE} alive, start and drain in it", (before.whole, behind.whole), limit)
    few = max(RUNNING, DIALOGUES // 4)
    for name, dialogues, alive, barrier in (
        (f"{RUNNING} alive", 2 * few, RUNNING, False),
        (f"{ALIVE} alive, a barrier after every turn", max(few, ALIVE), ALIVE, True),
        ("three at a time", 9, 3, False),
    ):
        began = time.monotonic()
        played = await bench.play(
            name.replace(" ", "-").replace(",", ""), dialogues, alive, barrier
        )
        tell(name, [figures(began, played.done)], limit)
