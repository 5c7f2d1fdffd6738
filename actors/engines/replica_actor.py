"""The Ray actor around a replica, and the watchdog that ends it when nothing moves any more.

Invariants: the constructor only stores (an exception there during a restart would end the actor for
good); an engine that has died or hangs ends its process, so that Ray starts it again, unless
starting again cannot help: then every call is told why; an actor that Ray has started again loads
its model when the first call reaches it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial

from actors.engines.backends import make_backend
from actors.engines.replica import ReplicaCore
from actors.metrics import begin_recording, engine_readings
from actors.orphans import end_when_orphaned
from specs.engine import EngineInfo, EngineStats, Polled, Request, engine_of
from specs.engine_section import EngineSection
from specs.errors import EngineError

_log = logging.getLogger(__name__)
EXIT_DEAD = 70


class HangWatch:
    """Tells when nothing has moved for too long while something runs; the clock is injected."""

    def __init__(self, hang_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._hang_s = hang_s
        self._clock = clock
        self._last: Hashable = None
        self._since = clock()

    def hangs(self, awaited: int, progress: Hashable) -> bool:
        """Return whether `progress` has been the same for `hang_s` seconds with work owed."""
        now = self._clock()
        if not awaited or progress != self._last:
            self._last = progress
            self._since = now
        return now - self._since >= self._hang_s


def watch(
    watcher: HangWatch,
    observe: Callable[[], tuple[int, Hashable]],
    on_hang: Callable[[], None],
    interval_s: float,
) -> threading.Event:
    """Look every `interval_s` seconds from a thread; set the returned event to end it."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(interval_s):
            if watcher.hangs(*observe()):
                on_hang()
                return

    threading.Thread(target=look, name="hang-watch", daemon=True).start()
    return ended


class ReplicaActor:
    """One replica as a Ray actor; the caller wraps it.

    `ray.remote(max_concurrency=4000, max_restarts=-1, max_task_retries=0)(ReplicaActor)`

    Args:
        config: the engine's section of the run file.
        name: of the replica.
        adapter: folder of a LoRA adapter to serve, or empty.
    """

    def __init__(self, config: EngineSection, name: str, adapter: str = "") -> None:
        end_when_orphaned()
        self._config = config
        self._name = name
        self._adapter = adapter
        self._core: ReplicaCore | None = None
        self._starting: asyncio.Task[EngineInfo] | None = None
        self._watch: threading.Event | None = None
        self._recording: asyncio.Task[None] | None = None
        self._failure = ""  # of the last attempt to load

    async def start(self) -> EngineInfo:
        """Load the model; idempotent.

        Raises:
            EngineError: when it cannot be loaded, or not within the run file's deadline.
        """
        task = self._starting
        if task is None or (task.done() and _may_try_again(task)):
            task = self._starting = asyncio.ensure_future(self._load())
        return await asyncio.shield(task)

    async def submit(self, client: str, requests: Sequence[Request]) -> Polled:
        """Take a micro-batch; returns the load."""
        return await (await self._ready()).submit(client, requests)

    async def poll(self, client: str, acknowledged: int, timeout_s: float) -> Polled:
        """Return what has finished."""
        return await (await self._ready()).poll(client, acknowledged, timeout_s)

    async def abort(self, client: str, request_ids: Sequence[str]) -> None:
        """Stop working on these requests."""
        await (await self._ready()).abort(client, request_ids)

    async def stats(self) -> EngineStats:
        """Return the load and the counters; while it loads, zeros, and why it loads again."""
        if self._core is not None:
            return await self._core.stats()
        return EngineStats(away=self._failure or "it is loading")

    async def reset_cache(self) -> None:
        """Empty the prefix cache."""
        await (await self._ready()).reset_cache()

    async def stop(self) -> None:
        """Release the model and its processes."""
        if self._watch is not None:
            self._watch.set()
        if self._core is not None:
            await self._core.stop()

    async def pid(self) -> int:
        """Return the process's number, for whoever has to look at it or to end it."""
        return os.getpid()

    async def _load(self) -> EngineInfo:
        backend = make_backend(self._config, self._name, self._adapter)
        core = ReplicaCore(backend, self._name, on_death=self._died)
        deadline = self._config.start_deadline_s
        try:
            info = await asyncio.wait_for(core.start(), deadline)
        except TimeoutError:
            await core.stop()
            self._failure = (
                f"the engine {self._name} did not start within {deadline:g} s "
                "(start_deadline_s in the run file)"
            )
            raise EngineError(self._failure) from None
        except EngineError as error:
            await core.stop()
            self._failure = str(error)
            raise
        self._core = core
        if self._recording is None:
            engine = engine_of(self._name) or self._name
            self._recording = begin_recording(self.stats, partial(engine_readings, engine))
        if self._config.kind != "openai":  # an endpoint tells of no progress while it answers
            hang_s = self._config.hang_s
            self._watch = watch(
                HangWatch(hang_s),
                lambda: (core.awaited, core.moved),
                lambda: self._exit(f"nothing has moved for {hang_s:g} s"),
                interval_s=min(5.0, hang_s / 4),
            )
        return info

    async def _ready(self) -> ReplicaCore:
        task = self._starting
        if self._core is None and (task is None or task.done()):
            # Started again by Ray, or failed before: load, and let whoever called ask again.
            if task is not None and not _may_try_again(task):
                await task
            task = self._starting = asyncio.ensure_future(self._load())
            task.add_done_callback(_seen)
        if self._core is None:
            raise EngineError(f"the engine {self._name} is loading")
        return self._core

    def _died(self, error: EngineError) -> None:
        # A permanent death is told to whoever calls: a new process would load, and die of it again.
        if not error.permanent:
            self._exit(str(error))

    def _exit(self, why: str) -> None:
        _log.error("the engine %s has died: %s; its process ends", self._name, why)
        logging.shutdown()
        os._exit(EXIT_DEAD)


def _may_try_again(task: asyncio.Task[EngineInfo]) -> bool:
    if task.cancelled():
        return True
    error = task.exception()
    return error is not None and not (isinstance(error, EngineError) and error.permanent)


def _seen(task: asyncio.Task[EngineInfo]) -> None:
    if not task.cancelled():
        task.exception()
