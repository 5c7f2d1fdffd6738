"""One request at a replica, from its arrival to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass

from specs.engine import Answer, Backend, Failure, Request

Key = tuple[str, str]
"""The client's name and the request's id."""


@dataclass(slots=True)
class Job:
    """One request of one client.

    Attributes:
        places: that it takes: one for each candidate.
        moved: the backend's progress when it was admitted.
    """

    key: Key
    request: Request
    places: int
    order: int
    arrived: float
    tries: int = 0
    admitted: float = 0.0
    moved: Hashable = None
    task: asyncio.Task[Answer] | None = None
    timer: asyncio.TimerHandle | None = None
    over: bool = False

    def failed(self, failure: Failure) -> Answer:
        """Return the failure as its answer."""
        return Answer(self.key[1], failure=failure)


async def work(backend: Backend, request: Request) -> Answer:
    """Return what a backend answers, as a coroutine whatever it returned."""
    return await backend.generate(request)
