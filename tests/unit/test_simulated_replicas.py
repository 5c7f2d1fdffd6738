"""The simulated replicas' handles, without Ray: what looks like a handle calls its host."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from actors.engines.client import EngineClient
from actors.engines.ray_replica import RayReplica
from specs.engine import Request, Sampling, engine_of
from specs.engine_section import EngineSection, ReferenceFaults
from specs.errors import EngineError
from tests.bench.simulated_replicas import (
    ReplicaHost,
    SimulatedReplica,
    Use,
    paced,
)

SECTION = EngineSection(kind="reference", max_running=2)


class Near:
    """A handle of an actor that lives in this process."""

    def __init__(self, actor: ReplicaHost) -> None:
        self.call = self
        self._actor = actor

    def remote(self, *arguments: Any) -> Any:
        return self._actor.call(*arguments)


def request(number: int) -> Request:
    return Request(f"r{number}", Sampling(max_tokens=8, seed=number), references=("one two",))


async def test_a_client_asks_replicas_of_one_host() -> None:
    host = ReplicaHost()
    handles = {
        name: SimulatedReplica(Near(host), name, SECTION) for name in ("ref-0", "ref-1", "ref-2")
    }
    for handle in handles.values():
        assert (await handle.start.remote()).max_running == 2
    client = EngineClient({name: RayReplica(handle) for name, handle in handles.items()})
    answers = [await client.ask(request(number), str(number)) for number in range(6)]
    await client.close()
    assert {answer.replica for answer in answers} == set(handles)
    assert (await host.use())["ref"].answered == 6


async def test_what_has_not_started_says_so() -> None:
    handle = SimulatedReplica(Near(ReplicaHost()), "ref-0", SECTION)
    assert (await handle.stats.remote()).away
    assert await handle.stop.remote() is None
    with pytest.raises(EngineError, match="loading"):
        await handle.submit.remote("me", [])


def test_a_handle_travels() -> None:
    handle = SimulatedReplica("the host's handle", "ref-0", SECTION)
    assert pickle.loads(pickle.dumps(handle)) == handle


def test_a_replica_twice_as_fast_takes_half_as_long() -> None:
    config = SECTION.model_copy(
        update={"faults": ReferenceFaults(latency_s=(1.0, 2.0), token_s=0.5, stragglers=0.1)}
    )
    faults = paced(config, 2.0).faults
    assert (faults.latency_s, faults.token_s, faults.stragglers) == ((0.5, 1.0), 0.25, 0.1)


def test_use_counts_place_seconds() -> None:
    use = Use(since=10.0)
    use.change(2, 11.0)
    use.change(-1, 14.0)
    use.change(0, 15.0)
    assert (use.running, use.seconds) == (1, 7.0)


def test_an_engines_name_may_hold_dashes() -> None:
    assert engine_of("my-engine-12") == "my-engine"
