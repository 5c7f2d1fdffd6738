"""A replica behind a Ray actor's handle, with Ray's errors told as EngineErrors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specs.engine import EngineInfo, EngineStats, Polled, Request, dead
from specs.errors import EngineError


class RayReplica:
    """Implements `specs.engine.Replica` around the handle of a `ReplicaActor`.

    Args:
        handle: of the actor.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def start(self) -> EngineInfo:
        """Load the model; idempotent."""
        info: EngineInfo = await self._call("start")
        return info

    async def submit(self, client: str, requests: Sequence[Request]) -> Polled:
        """Take a micro-batch; returns the load."""
        taken: Polled = await self._call("submit", client, list(requests))
        return taken

    async def poll(self, client: str, acknowledged: int, timeout_s: float) -> Polled:
        """Return what has finished."""
        polled: Polled = await self._call("poll", client, acknowledged, timeout_s)
        return polled

    async def abort(self, client: str, request_ids: Sequence[str]) -> None:
        """Stop working on these requests."""
        await self._call("abort", client, list(request_ids))

    async def stats(self) -> EngineStats:
        """Return the load and the counters."""
        stats: EngineStats = await self._call("stats")
        return stats

    async def reset_cache(self) -> None:
        """Empty the prefix cache."""
        await self._call("reset_cache")

    async def stop(self) -> None:
        """Release the model and its processes."""
        await self._call("stop")

    async def _call(self, method: str, *arguments: Any) -> Any:
        from ray.exceptions import ActorDiedError, RayError, RayTaskError

        try:
            return await getattr(self._handle, method).remote(*arguments)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, EngineError):
                raise EngineError(str(cause), cause.permanent) from None
            raise dead(f"{method} has failed at the replica: {cause!r}") from error
        except ActorDiedError as error:
            raise dead(f"the replica's process has ended: {error}") from error
        except RayError as error:
            raise dead(f"the replica cannot be reached: {error}") from error
