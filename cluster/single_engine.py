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
from cluster.nodes import cluster_address, nodes_of
from cluster.placement import check_places
from specs.engine import EngineInfo, Replica, replica_name
from specs.engine_section import EngineSection
from specs.errors import EngineError
from specs.run_file import ClusterSection

LOOK_S = 0.1
Started = tuple[EngineClient, EngineInfo]

ALONE = "-alone"
"""Stands behind names: a run's own replica may be up, waiting for its next round."""


@contextlib.asynccontextmanager
async def started(
    config: EngineSection,
    name: str,
    adapter: str = "",
    cluster: ClusterSection = ClusterSection(),  # noqa: B008  # frozen
) -> AsyncIterator[Started]:
    """Start an engine; yields its client and what it is.

    An engine with GPUs, of a run on a cluster, or inside a session of Ray, runs in Ray actors: the
    driver's machine need not have a GPU, and a process with Ray's threads cannot be forked. Any
    other runs in this process.

    Args:
        name: of the engine in the run file.
        adapter: the folder of a LoRA adapter that requests may name.
        cluster: of the run file.

    Raises:
        InputError: there are fewer GPUs than it asks for.
        EngineError: when it cannot start, or not within the run file's deadline.
    """
    import ray

    if config.gpus or cluster_address(cluster.address) or ray.is_initialized():
        async with _on_cluster(config, name, adapter, cluster) as found:
            yield found
        return
    replica = ReplicaCore(make_backend(config, name, adapter), name)
    async with _served(config, name, {name: replica}) as found:
        yield found


@contextlib.asynccontextmanager
async def _on_cluster(
    config: EngineSection, name: str, adapter: str, cluster: ClusterSection
) -> AsyncIterator[Started]:
    from actors.engines.ray_replica import RayReplica
    from cluster.fleet import Fleet, replica_actor
    from cluster.session import ray_session

    def say(text: str) -> None:
        click.echo(text, err=True)

    def make(_: str, number: int, group: Any) -> Any:
        return replica_actor(config, f"{replica_name(name, number)}{ALONE}", group, adapter)

    address = cluster.address
    with ray_session(address):
        check_places({name: (config, config.least)}, nodes_of(cluster.launcher, address))
        counts = {name: (config.least, config.least)}
        fleet = Fleet({name: config}, counts, make, say, mark=ALONE)
        try:
            while not fleet.complete:
                fleet.look()
                await asyncio.sleep(LOOK_S)
            replicas = {key: RayReplica(handle) for key, handle in fleet.made().items()}
            async with _served(config, name, replicas) as found:
                yield found
        finally:
            fleet.close()


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
