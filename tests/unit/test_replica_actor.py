"""What a replica's actor does when its engine dies: its process ends, unless that cannot help."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest

from actors.engines import replica_actor
from actors.engines.backends import make_backend
from actors.engines.openai_endpoint import OpenAIBackend
from actors.engines.replica_actor import ReplicaActor
from specs.engine import Message, Request, Sampling
from specs.engine_section import EngineSection
from specs.errors import EngineError


def _penniless(request: httpx.Request) -> httpx.Response:
    if request.url.path.endswith("/models"):
        return httpx.Response(200, json={"data": [{"id": "m"}]})
    return httpx.Response(402, json={"error": {"message": "out of credit"}})


async def test_a_death_that_is_final_is_told_and_starts_nothing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = EngineSection(kind="openai", url="http://127.0.0.1/v1", model="m")
    backend = OpenAIBackend(config, "r", httpx.MockTransport(_penniless))
    exits: list[int] = []
    monkeypatch.setattr(replica_actor, "make_backend", lambda *_: backend)
    monkeypatch.setattr("os._exit", exits.append)
    actor = ReplicaActor(config, "r")
    await actor.start()
    await actor.submit("c", [Request("a", Sampling(8, 0), messages=(Message("user", "x"),))])
    for _ in range(2):
        with pytest.raises(EngineError, match="out of credit") as caught:
            await asyncio.wait_for(actor.poll("c", 0, 5.0), 10)
        assert caught.value.permanent
    assert not exits
    await actor.stop()


async def test_an_endpoint_is_not_watched_for_hangs_since_it_tells_of_no_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched: list[float] = []

    def watch(*_: Any, interval_s: float) -> threading.Event:
        watched.append(interval_s)
        return threading.Event()

    endpoint = EngineSection(kind="openai", url="http://127.0.0.1/v1", model="m")
    answering = OpenAIBackend(endpoint, "r", httpx.MockTransport(_penniless))
    still = EngineSection(kind="reference")
    monkeypatch.setattr(replica_actor, "watch", watch)
    for config, backend, watches in (
        (endpoint, answering, 0),
        (still, make_backend(still, "r"), 1),
    ):
        monkeypatch.setattr(replica_actor, "make_backend", lambda *_, made=backend: made)
        actor = ReplicaActor(config, "r")
        await actor.start()
        await actor.stop()
        assert len(watched) == watches


async def test_an_engine_that_does_not_load_says_why_while_it_is_asked_how_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after its death in the middle of a run: nobody calls `start` then, and the run waits."""
    config = EngineSection(kind="reference")
    working = make_backend

    def broken(*_: Any) -> Any:
        backend = working(config, "r")

        async def start() -> Any:
            raise EngineError("no room on the GPU")

        monkeypatch.setattr(backend, "start", start)
        return backend

    monkeypatch.setattr(replica_actor, "make_backend", broken)
    actor = ReplicaActor(config, "r")
    with pytest.raises(EngineError, match="is loading"):
        await actor.submit("c", [])
    assert (await actor.stats()).away == "it is loading"
    with pytest.raises(EngineError, match="no room on the GPU"):
        await actor.start()
    assert (await actor.stats()).away == "no room on the GPU"
    monkeypatch.setattr(replica_actor, "make_backend", working)
    await actor.start()
    assert (await actor.stats()).away == ""
    await actor.stop()
