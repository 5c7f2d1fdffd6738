"""Replicas as Ray actors: one is killed, and every request is answered all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from actors.engines.client import ClientLimits, EngineClient
from actors.engines.ray_replica import RayReplica
from actors.engines.replica_actor import ReplicaActor
from specs.engine import Answer, Request, Sampling
from specs.engine_section import EngineSection, ReferenceFaults
from specs.errors import EngineError
from tests.ray.command import HANG_S

LIMITS = ClientLimits(backoff_s=(0.05, 0.5), poll_s=2.0)
SLOW = ReferenceFaults(latency_s=(0.2, 0.6))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def actor(name: str, **keys: Any) -> Any:
    import ray

    config = EngineSection.model_validate({"kind": "reference"} | keys)
    wrapped: Any = ray.remote(ReplicaActor)
    made = wrapped.options(num_cpus=0, max_concurrency=4000, max_restarts=-1)
    return made.remote(config, name)


def request(name: str, seed: int) -> Request:
    return Request(name, Sampling(8, seed), references=("one", "two"), deadline_s=20.0)


async def ask_many(client: EngineClient, prefix: str, count: int) -> list[Answer]:
    asked = (client.ask(request(f"{prefix}{i}", i), i) for i in range(count))
    return await asyncio.wait_for(asyncio.gather(*asked), HANG_S)


def client_of(*handles: Any) -> EngineClient:
    return EngineClient({f"r{i}": RayReplica(one) for i, one in enumerate(handles)}, limits=LIMITS)


async def test_a_killed_replica_loses_no_request() -> None:
    import ray

    handles = [actor(name, faults=SLOW, max_running=64) for name in ("a", "b")]
    await asyncio.gather(*(RayReplica(one).start() for one in handles))
    client = client_of(*handles)
    asking = asyncio.ensure_future(ask_many(client, "q", 200))
    await asyncio.sleep(0.3)
    before = await handles[0].pid.remote()
    ray.kill(handles[0], no_restart=False)
    answers = await asking
    assert [answer.id for answer in answers] == [f"q{i}" for i in range(200)]
    assert all(answer.failure is None for answer in answers)
    # The one that was killed comes back by itself, and is used again.
    for attempt in range(100):
        again = await ask_many(client, f"again{attempt}-", 20)
        if {answer.replica for answer in again} == {"a", "b"}:
            break
    else:
        pytest.fail("the killed replica was never used again")
    assert await handles[0].pid.remote() != before
    await client.close()


async def test_a_crash_of_the_only_replica_is_survived() -> None:
    handle = actor("c", faults=ReferenceFaults(latency_s=(0.001, 0.002), crash_after=30))
    await RayReplica(handle).start()
    client = client_of(handle)
    for block in range(2):
        answers = await ask_many(client, f"b{block}-", 20)
        assert all(answer.failure is None for answer in answers)
    await client.close()


async def test_a_hang_ends_the_process() -> None:
    handle = actor("h", hang_s=0.4, faults=ReferenceFaults(hang=1.0))
    replica = RayReplica(handle)
    await replica.start()
    before = await handle.pid.remote()
    await replica.submit("c", [request("q", 0)])
    with pytest.raises(EngineError, match=r"process has ended|cannot be reached|loading"):
        await asyncio.wait_for(replica.poll("c", 0, 60.0), HANG_S)
    client = client_of(handle)  # which waits until Ray has started it again
    hanging = replace(request("p", 0), deadline_s=0.05)
    answer = await asyncio.wait_for(client.ask(hanging, 0), HANG_S)
    assert answer.failure is not None
    assert answer.failure.kind == "deadline"
    assert await handle.pid.remote() != before
    await client.close()


async def test_errors_keep_their_type_and_words_across_processes() -> None:
    handle = actor("e", model="x")
    with pytest.raises(EngineError, match="loading"):
        await RayReplica(handle).submit("c", [])
    broken = actor("x", kind="vllm", model="/nowhere/at/all")
    for _ in range(2):
        with pytest.raises(EngineError, match="there is no model at /nowhere") as caught:
            await RayReplica(broken).start()
        assert caught.value.permanent
    client = client_of(broken)
    with pytest.raises(EngineError, match="there is no model"):
        await asyncio.wait_for(client.ask(request("q", 0), 0), HANG_S)
    await client.close()
