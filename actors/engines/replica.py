"""A replica of an engine: micro-batches in, answers out by long poll, in plain asyncio.

Invariants: a request is known by its client and its id, and while it waits, runs, or is answered
but not acknowledged, submitting it again changes nothing; at most as many candidates run at once as
the backend holds (`admission`), admitted by priority and then arrival; a deadline counts from
admission, and what waits to be sent (again) has none, and no place; answers stay in a client's log
until the client acknowledges their sequence number. Sequence numbers begin at a random number in
each incarnation, so that an acknowledgement meant for another one is recognised.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
import uuid
from collections.abc import Callable, Coroutine, Hashable, Sequence
from dataclasses import replace
from typing import Any

from actors.engines.admission import Admission
from actors.engines.answer_log import LINGER_S, AnswerLog, lull
from actors.engines.job import Job, Key, work
from actors.engines.rate_limit import backoff
from specs.engine import (
    Answer,
    Backend,
    EngineInfo,
    EngineStats,
    Failure,
    Later,
    Load,
    Polled,
    Request,
)
from specs.errors import EngineError

TRIES = 5
"""How often a request is sent that its backend could not answer yet."""

LOOK_S = 0.1
"""How often the backend's load is looked at, while something comes and goes."""


class ReplicaCore:
    """One replica around a backend (implements `specs.engine.Replica`).

    Args:
        backend: what answers; it is started by `start`.
        name: stands in every answer.
        on_death: called with the reason, once, when the backend has died.
        client_ttl_s: a client that has not called for so long is dropped with its requests.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        *,
        on_death: Callable[[EngineError], None] | None = None,
        client_ttl_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.running = 0
        self._answered = 0
        self._overdue = 0
        self._backend = backend
        self._on_death = on_death
        self._client_ttl_s = client_ttl_s
        self._clock = clock
        self._draw = random.Random()
        self._opening: asyncio.TimerHandle | None = None
        self._starting: asyncio.Task[EngineInfo] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._death: EngineError | None = None
        self._info: EngineInfo | None = None
        self._counts = EngineStats()
        self._reset()

    @property
    def moved(self) -> Hashable:
        """What changes whenever the backend does something; an admission is no doing of its."""
        load = self._backend.stats()
        return self._answered, load.prompt_tokens, load.completion_tokens

    @property
    def awaited(self) -> int:
        """How many requests the backend owes: those that run, and those that it sat out."""
        return self.running + self._overdue

    def _reset(self) -> None:
        self.incarnation = uuid.uuid4().hex
        self.running = 0
        self._overdue = 0
        self._sequence = self._first = random.SystemRandom().getrandbits(61)
        self._clients: dict[str, AnswerLog] = {}
        self._jobs: dict[Key, Job | None] = {}  # None: answered and not acknowledged
        self._queue: list[tuple[int, int, Job]] = []
        self._arrivals = 0
        self._waiting = 0
        self._taken = 0
        self._owed = 0  # places of all that has no answer yet
        self._admission = Admission(0)
        self._look_at = 0.0
        self._takes_s = 0.0
        self._names: set[str] = set()
        self._swept = self._clock()

    async def start(self) -> EngineInfo:
        """Load the model; idempotent. After a death it loads again, as a new incarnation.

        Raises:
            EngineError: when it cannot be loaded; the next call tries again unless it is permanent.
        """
        if self._starting is None or (self._starting.done() and self._may_restart()):
            self._death = self._info = None
            self._reset()
            self._starting = asyncio.ensure_future(self._backend.start())
        info = await asyncio.shield(self._starting)
        if self._info is None:
            self._info, self._admission = info, Admission(info.max_running)
        return info

    def _may_restart(self) -> bool:
        task = self._starting
        if task is None or task.cancelled() or self._death is not None:
            return True
        error = task.exception()
        return error is not None and not getattr(error, "permanent", False)

    async def submit(self, client: str, requests: Sequence[Request]) -> Polled:
        """Take a micro-batch, without waiting for its answers; returns none, but the load.

        Raises:
            EngineError: when the replica has not started or has died.
        """
        self._alive()
        known = self._client(client)
        for request in requests:
            key = (client, request.id)
            if key not in self._jobs:
                self._enqueue(key, request, known)
        self._admit()
        return Polled(self.incarnation, self._load(known))

    async def poll(self, client: str, acknowledged: int, timeout_s: float) -> Polled:
        """Return what has finished since `acknowledged`, or nothing after `timeout_s` seconds.

        A client that is not known here (any more) gets an empty incarnation: it submits again.
        """
        self._alive()
        if client not in self._clients:
            return Polled("", self._load(None))
        known = self._client(client)
        self._acknowledge(client, known, acknowledged)
        if not known.entries:
            await known.wait(timeout_s, max(LINGER_S, lull(self._takes_s)))
            self._alive()
            known.seen = self._clock()
        return Polled(self.incarnation, self._load(known), known.first())

    async def abort(self, client: str, request_ids: Sequence[str]) -> None:
        """Stop working on these requests; they get no answer. Unknown ones are ignored."""
        for request_id in request_ids:
            job = self._jobs.get((client, request_id))
            if job is not None:
                self._end(job)
        self._admit()

    async def stats(self) -> EngineStats:
        """Return the load and the counters since the start."""
        load = self._backend.stats() if self._info is not None else EngineStats()
        return replace(
            self._counts,
            running=self._taken,
            waiting=self._waiting,
            limit=self._admission.limit if self._info is not None else 0,
            kv_cache_use=load.kv_cache_use,
            preemptions=load.preemptions,
        )

    async def reset_cache(self) -> None:
        """Empty the prefix cache."""
        self._alive()
        await self._backend.reset_cache()

    async def stop(self) -> None:
        """Release the model and its processes; what is outstanding gets no answer."""
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        for job in list(self._jobs.values()):
            if job is not None:
                self._end(job)
        self._death = self._death or EngineError(f"the replica {self.name} has been stopped")
        self._wake_all()
        await self._backend.stop()

    def _alive(self) -> None:
        if self._death is not None:
            raise self._death
        if self._info is None:
            raise EngineError(f"the replica {self.name} has not started yet")
        self._sweep()

    def _client(self, name: str) -> AnswerLog:
        now = self._clock()
        known = self._clients.get(name)
        if known is None:
            known = self._clients[name] = AnswerLog(now)
        known.seen = now
        return known

    def _load(self, client: AnswerLog | None) -> Load:
        mine = client.owed if client is not None else 0
        return Load(self._owed - mine, self._admission.limit)

    def _enqueue(self, key: Key, request: Request, client: AnswerLog) -> None:
        assert self._info is not None
        places = min(max(1, request.sampling.n), max(1, self._info.max_running))
        self._arrivals += 1
        job = self._jobs[key] = Job(key, request, places, self._arrivals, self._clock())
        self._waiting += 1
        self._owed += places
        client.owed += places
        self._queue_up(job)

    def _queue_up(self, job: Job) -> None:
        heapq.heappush(self._queue, (job.request.priority, job.order, job))

    def _admit(self) -> None:
        """Admit from the queue's head while there is room; nothing overtakes the head."""
        if self._info is None or self._death is not None:
            return
        self._look()
        limit = self._admission.limit
        while self._queue:
            job = self._queue[0][2]
            if not job.over:
                if self._taken and self._taken + job.places > limit:
                    return
                pause = self._backend.admit()
                if pause > 0:
                    self._admit_in(pause)
                    return
            heapq.heappop(self._queue)
            if not job.over:
                self._begin(job)

    def _look(self) -> None:
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            counts = self._counts
            finished = counts.finished + counts.failed
            self._admission.observe(now, replace(self._backend.stats(), finished=finished))

    def _admit_in(self, seconds: float) -> None:
        if self._opening is not None:
            self._opening.cancel()
        self._opening = asyncio.get_running_loop().call_later(seconds, self._admit)

    def _begin(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        self._waiting -= 1
        self._taken += job.places
        self.running += 1
        job.tries += 1
        job.admitted = self._clock()
        job.moved = self.moved
        request = job.request
        if request.id in self._names:  # another client's request of the same name still runs
            request = replace(request, id=f"{request.id}@{job.key[0]}")
        self._names.add(request.id)
        job.request = request
        job.task = loop.create_task(work(self._backend, request))
        job.task.add_done_callback(lambda task: self._done(job, task))
        job.timer = loop.call_later(request.deadline_s, self._expire, job)

    def _done(self, job: Job, task: asyncio.Task[Answer]) -> None:
        if job.over:
            if not task.cancelled():
                task.exception()  # seen
            return
        if task.cancelled():
            self._reply(job, job.failed(Failure("aborted", "the engine gave the request up")))
            return
        error = task.exception()
        if isinstance(error, Later):
            self._postpone(job, error)
        elif isinstance(error, EngineError):
            self._die(error)
        elif error is not None:
            self._has_moved()
            what = f"{type(error).__name__}: {error}"
            self._reply(job, job.failed(Failure("unavailable", what)))
        else:
            self._has_moved()
            self._reply(job, task.result())

    def _postpone(self, job: Job, later: Later) -> None:
        """Queue a job again, in its old order, after a pause in which it holds nothing."""
        self._has_moved()
        if job.tries >= TRIES:
            message = f"no answer in {TRIES} tries: {later}"
            self._reply(job, job.failed(Failure("unavailable", message)))
            return
        self._vacate(job)
        job.task = None
        self._waiting += 1
        pause = 0.0 if later.at_once else backoff(job.tries - 1, self._draw)
        job.timer = asyncio.get_running_loop().call_later(pause, self._send_again, job)
        self._admit()

    def _has_moved(self) -> None:
        self._answered += 1
        self._overdue = 0

    def _send_again(self, job: Job) -> None:
        self._queue_up(job)
        self._admit()

    def _expire(self, job: Job) -> None:
        if not job.over:
            # Its place goes to another request, whose time would run out in the same way.
            self._overdue += job.moved == self.moved
            seconds = job.request.deadline_s
            self._reply(job, job.failed(Failure("deadline", f"no answer within {seconds:g} s")))

    def _reply(self, job: Job, answer: Answer) -> None:
        client = self._clients.get(job.key[0])
        self._end(job)
        if job.admitted:
            self._takes_s += 0.05 * (self._clock() - job.admitted - self._takes_s)
        if client is not None:
            self._jobs[job.key] = None
            self._sequence += 1
            answer = replace(
                answer,
                id=job.key[1],
                queue_s=answer.queue_s + job.admitted - job.arrived,
                replica=self.name,
            )
            client.add(self._sequence, answer)
            self._count(answer)
        self._admit()

    def _end(self, job: Job) -> None:
        """Take a job out of the books and stop its work, wherever it is."""
        if job.over:
            return
        job.over = True
        self._jobs.pop(job.key, None)
        self._owed -= job.places
        if (client := self._clients.get(job.key[0])) is not None:
            client.owed -= job.places
        if job.timer is not None:
            job.timer.cancel()
        if job.task is None:
            self._waiting -= 1
            return
        self._vacate(job)
        if not job.task.done():
            job.task.cancel()
            self._spawn(self._backend.abort([job.request.id]))

    def _vacate(self, job: Job) -> None:
        """Give back what a running job holds."""
        self._taken -= job.places
        self.running -= 1
        self._names.discard(job.request.id)
        if job.timer is not None:
            job.timer.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _count(self, answer: Answer) -> None:
        counts, failure = self._counts, answer.failure
        self._counts = EngineStats(
            finished=counts.finished + (failure is None),
            failed=counts.failed + (failure is not None),
            overdue=counts.overdue + (failure is not None and failure.kind == "deadline"),
            prompt_tokens=counts.prompt_tokens + answer.prompt_tokens,
            cached_tokens=counts.cached_tokens + answer.cached_tokens,
            completion_tokens=counts.completion_tokens + answer.completion_tokens,
            queue_s=counts.queue_s + answer.queue_s,
            prefill_s=counts.prefill_s + answer.prefill_s,
            decode_s=counts.decode_s + answer.decode_s,
        )

    def _acknowledge(self, name: str, client: AnswerLog, acknowledged: int) -> None:
        if not self._first <= acknowledged <= self._sequence:
            return  # of another incarnation
        for answered in client.acknowledge(acknowledged):
            self._jobs.pop((name, answered), None)

    def _sweep(self) -> None:
        """Drop clients that have vanished; looked at whenever somebody calls."""
        now = self._clock()
        if now - self._swept < self._client_ttl_s / 4:
            return
        self._swept = now
        gone = {name for name, c in self._clients.items() if now - c.seen > self._client_ttl_s}
        for name in gone:
            self._clients.pop(name).wake()
        for key, job in list(self._jobs.items()):
            if key[0] in gone:
                if job is not None:
                    self._end(job)
                self._jobs.pop(key, None)

    def _die(self, error: EngineError) -> None:
        if self._death is not None:
            return
        self._death = error
        for job in list(self._jobs.values()):
            if job is not None:
                self._end(job)
        self._wake_all()
        if self._on_death is not None:
            self._on_death(error)

    def _wake_all(self) -> None:
        for client in self._clients.values():
            client.wake()
