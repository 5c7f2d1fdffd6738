"""Engines that stay up from one generation of a run to the next, so that only the adapter is new.

They stay where nobody waits for their place: on machines without GPUs, and where training has GPUs
of its own (`train.gpus = "own"`) and the evaluation finds some, too. Else they are ended before
training, and started anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.engines.vllm_engine import fitting_rank
from specs.engine import EngineStats
from specs.engine_section import EngineSection
from specs.run_file import RunFile

if TYPE_CHECKING:
    from cluster.fleet import Fleet
    from cluster.sizes import Sizes

STOP_S = 20.0
"""How long engines may take to give their memory back."""

_SPOKEN = {"profile", "tokens_per_s", "gpu_hour_price", "turn_deadline_s"}
"""Settings of an engine that its process does not know."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Engines that are up already, and what they had used when the last generation was over.

    Attributes:
        placed: for how many seconds each replica had had its place.
        stats: by engine and replica.
    """

    fleet: Fleet
    placed: Mapping[str, float]
    stats: Mapping[str, Mapping[str, EngineStats]]


@dataclass(slots=True)
class KeptEngines:
    """Holds the engines between two generations."""

    _kept: Taken | None = None
    _key: Any = None

    def take(self, run: RunFile, sizes: Sizes) -> Taken | None:
        """Return the engines, if they are what this run would start; else they are ended."""
        found, self._kept = self._kept, None
        if found is None:
            return None
        if self._key == _key(run, sizes):
            return found
        end(found.fleet)
        return None

    def keep(self, run: RunFile, sizes: Sizes, taken: Taken) -> None:
        """Hold the engines of a generation that is over."""
        self.close()
        self._kept, self._key = taken, _key(run, sizes)

    def close(self) -> None:
        """End them."""
        found, self._kept = self._kept, None
        if found is not None:
            end(found.fleet)


def end(fleet: Fleet) -> None:
    """End engines in good order, then their processes, and give their places back."""
    from cluster.asking import gather

    gather({name: handle.stop.remote for name, handle in fleet.made().items()}, STOP_S)
    fleet.close()


def _key(run: RunFile, sizes: Sizes) -> Any:
    engines = {name: run.engines[name] for name in run.speaking_engines}
    told = {name: one.model_dump_json(exclude=_SPOKEN) for name, one in engines.items()}
    return told, dict(sizes.replicas)


def ready_for_adapters(run: RunFile) -> RunFile:
    """Return the run with an agent's engine into which each round's adapter can be loaded."""
    name = run.roles.agent
    engine = run.engines[name]
    if engine.kind != "vllm":
        return run
    rank = fitting_rank(run.train.rank)
    lora = {"enable_lora": True, "max_loras": 2, "max_lora_rank": rank}
    opened = engine.model_copy(update={"vllm": {**lora, **engine.vllm}})
    return run.model_copy(update={"engines": {**run.engines, name: opened}})


def why_not(run: RunFile) -> str:
    """Return why a run's engines cannot stay up between its rounds; empty where they can."""
    if run.train.method == "full":
        return "fully trained weights are another model"
    if run.roles.adapter is not None and run.engines[run.roles.agent].kind == "vllm":
        return "the run file's own adapter decides how they are started"
    engines = [run.engines[name] for name in run.speaking_engines]
    if not any(engine.gpus for engine in engines):
        return ""
    if any(engine.replicas == "auto" for engine in engines):
        return 'how many there are is settled anew (replicas = "auto")'
    if run.train.gpus == "shared":
        return 'training takes over their GPUs (train.gpus = "own" would leave them theirs)'
    return _no_room(run, engines)


def _no_room(run: RunFile, engines: list[EngineSection]) -> str:
    from cluster.evaluation_plan import serving_engine
    from cluster.nodes import nodes_of
    from cluster.session import ray_session

    with ray_session(run.cluster.address):
        there = nodes_of(run.cluster.launcher, run.cluster.address).most_of("GPU")
    theirs = sum((engine.gpus or 0) * engine.most for engine in engines)
    judges = [run.engines[name] for name in (run.curate.judge, run.evaluate.judge) if name]
    alone = [(one.gpus or 0) * one.least for one in (serving_engine(run), *judges)]
    training = run.train.workers * (
        1 if run.train.gpus_per_worker is None else run.train.gpus_per_worker
    )
    if theirs + max(*alone, training) <= there:
        return ""
    return f"training or the evaluation would wait for GPUs: {theirs:g} of {there:g} are theirs"


@contextlib.contextmanager
def kept_engines(run: RunFile) -> Iterator[KeptEngines]:
    """Hold engines for as long as this lasts, in one session of Ray."""
    from cluster.session import ray_session

    with ray_session(run.cluster.address):
        kept = KeptEngines()
        try:
            yield kept
        finally:
            kept.close()
