"""One engine for a command that needs nothing else of a crew: in this process, or on a cluster.

Invariant: whatever happens, the engine is stopped and its client closed in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import click

from actors.engines.backends import make_backend
from actors.engines.client import EngineClient
from actors.engines.replica import ReplicaCore
from cluster.placement import check_gpus, cluster_address
from specs.engine import EngineInfo, Replica
from specs.engine_section import EngineSection
from specs.errors import EngineError

Started = tuple[EngineClient, EngineInfo]


@contextlib.asynccontextmanager
async def started(
    config: EngineSection, name: str, adapter: str = "", address: str | None = None
) -> AsyncIterator[Started]:
    """Start an engine; yields its client and what it is.

    An engine with GPUs, or of a run on a cluster, runs in Ray actors: the driver's machine need
    not have a GPU. Any other runs in this process.

    Args:
        name: of the engine in the run file.
        adapter: the folder of a LoRA adapter that requests may name.
        address: of the cluster; None where the run file gives none.

    Raises:
        InputError: there are fewer GPUs than it asks for.
        EngineError: when it cannot start, or not within the run file's deadline.
    """
    if config.gpus or cluster_address(address):
        async with _on_cluster(config, name, adapter, address) as found:
            yield found
        return
    replica = ReplicaCore(make_backend(config, name, adapter), name)
    async with _served(config, name, {name: replica}) as found:
        yield found


@contextlib.asynccontextmanager
async def _on_cluster(
    config: EngineSection, name: str, adapter: str, address: str | None
) -> AsyncIterator[Started]:
    import ray

    from actors.engines.ray_replica import RayReplica
    from actors.engines.replica_actor import ReplicaActor
    from cluster.crew import ray_session

    session = contextlib.nullcontext() if ray.is_initialized() else ray_session(address)
    options: dict[str, Any] = {
        "num_cpus": 0,
        "num_gpus": config.gpus or 0,
        "max_restarts": -1,
        "max_concurrency": 4000,
    }
    with session:
        check_gpus({name: config}, address, lambda text: click.echo(text, err=True))
        make = ray.remote(ReplicaActor).options(**options)
        handles: dict[str, Any] = {
            f"{name}-{number}": make.remote(config, f"{name}-{number}", adapter)
            for number in range(config.least)
        }
        try:
            replicas = {key: RayReplica(handle) for key, handle in handles.items()}
            async with _served(config, name, replicas) as found:
                yield found
        finally:
            for handle in handles.values():
                with contextlib.suppress(ValueError):
                    ray.kill(handle)


@contextlib.asynccontextmanager
async def _served(
    config: EngineSection, name: str, replicas: Mapping[str, Replica]
) -> AsyncIterator[Started]:
    client = EngineClient(replicas, name)
    try:
        starting = asyncio.gather(*(replica.start() for replica in replicas.values()))
        try:
            infos = await asyncio.wait_for(starting, config.start_deadline_s)
        except TimeoutError:
            limit = f"{config.start_deadline_s:g} s (engines.{name}.start_deadline_s)"
            raise EngineError(f"the engine {name} did not start within {limit}") from None
        yield client, infos[0]
    finally:
        await client.close()
        for replica in replicas.values():
            with contextlib.suppress(EngineError):
                await replica.stop()
