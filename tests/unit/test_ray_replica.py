"""Whatever Ray raises about an actor, its client hears of an engine that may come back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions

from actors.engines.ray_replica import RayReplica
from specs.errors import EngineError

ray_raises: Any = exceptions  # which has no types


def failing(error: Exception) -> RayReplica:
    async def remote() -> None:
        raise error

    return RayReplica(SimpleNamespace(stats=SimpleNamespace(remote=remote)))


@pytest.mark.parametrize(
    "error",
    [
        ray_raises.ActorDiedError(),
        ray_raises.ActorUnavailableError("no answer", None),
        ray_raises.NodeDiedError("its node has died"),
        ray_raises.ObjectLostError("0" * 56, None, ""),
        ray_raises.OwnerDiedError("0" * 56, None, ""),
        ray_raises.RaySystemError("x"),
        ray_raises.RayTaskError("stats", "a traceback", KeyError("x")),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_ray_raises_may_pass(error: Exception) -> None:
    with pytest.raises(EngineError) as caught:
        await failing(error).stats()
    assert not caught.value.permanent


async def test_an_engines_own_words_are_kept() -> None:
    own = EngineError("there is no such model", permanent=True)
    with pytest.raises(EngineError, match="no such model") as caught:
        await failing(ray_raises.RayTaskError("stats", "a traceback", own)).stats()
    assert caught.value.permanent
