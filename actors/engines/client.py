"""How walkers ask an engine: micro-batches to its replicas, answers by long poll.

Invariants: a request that was asked gets exactly one answer, a failure at the worst; a dialogue
keeps its replica while that is up; what a replica may have lost (it has a new incarnation, or could
not be reached) is submitted again under the same id, which does no harm; tries are capped, and what
cannot succeed is not tried again.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
import uuid
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from actors.engines.routing import StickyRouter
from specs.engine import Answer, Failure, Polled, Replica, Request
from specs.errors import EngineError

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How a client waits and retries.

    Attributes:
        batch: most requests in one submission.
        in_flight: most requests that a replica has from this client.
        tries: how often a request is sent when its failure may pass.
        lives: how many lives of replicas may end while they work on one request, before it counts
            as what ends them.
        give_up_s: a replica that cannot be reached for so long loses its requests.
        backoff_s: the first and the longest pause before a replica is tried again.
        poll_s: how long a poll waits at the replica.
        call_s: how long any call may take beyond that.
    """

    batch: int = 256
    in_flight: int = 4096
    tries: int = 3
    lives: int = 6
    give_up_s: float = 600.0
    backoff_s: tuple[float, float] = (0.1, 5.0)
    poll_s: float = 20.0
    call_s: float = 60.0


@dataclass(slots=True)
class _Asked:
    """One request from its asking to its answer."""

    request: Request
    dialogue: Hashable
    future: asyncio.Future[Answer]
    wire: Request  # as it was sent last: every try has an id of its own
    order: int
    tries: int = 1
    link: _Link | None = None
    sent_under: str = ""
    life: str = ""
    lives: int = 0


@dataclass(slots=True)
class _Link:
    """The client's side of one replica."""

    name: str
    replica: Replica
    wake_sender: asyncio.Event = field(default_factory=asyncio.Event)
    wake_poller: asyncio.Event = field(default_factory=asyncio.Event)
    pending: list[tuple[int, int, int, _Asked]] = field(default_factory=list)
    pushed: int = 0
    outstanding: dict[str, _Asked] = field(default_factory=dict)
    aborts: list[str] = field(default_factory=list)
    incarnation: str = ""
    acknowledged: int = 0
    failures: int = 0
    down_since: float | None = None
    lost: bool = False

    def push(self, asked: _Asked) -> None:
        """Queue a request to be sent: by priority, then in the order of asking."""
        asked.link = self
        self.pushed += 1
        entry = (asked.request.priority, asked.order, self.pushed, asked)
        heapq.heappush(self.pending, entry)
        self.wake_sender.set()

    def requeue(self, sent: Iterable[_Asked]) -> None:
        """Send these again, as far as they are still without an answer."""
        for asked in list(sent):
            if self.outstanding.pop(asked.wire.id, None) is not None:
                self.push(asked)


class EngineClient:
    """One engine, with all its replicas, for one walker.

    Args:
        replicas: by name; in-process `ReplicaCore`s, or `RayReplica`s around actor handles.
        name: of this client, for messages; what replicas know it by is drawn.
    """

    def __init__(
        self,
        replicas: Mapping[str, Replica],
        name: str = "",
        limits: ClientLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # A walker that was started again is another client than the one that died, or has not yet.
        self.name = f"{name}:{uuid.uuid4().hex}"
        self._limits = limits or ClientLimits()
        self._clock = clock
        self._links = {key: _Link(key, replica) for key, replica in replicas.items()}
        self._loads = dict.fromkeys(self._links, 0.0)
        self._router = StickyRouter(list(self._links))
        self._asked: dict[str, _Asked] = {}
        self._by_wire: dict[str, _Asked] = {}
        self._order = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._error: EngineError | None = None
        self.sent_again = 0  # requests, after failures that may pass

    async def ask(self, request: Request, dialogue: Hashable) -> Answer:
        """Return the request's answer; a failure is an answer too.

        Cancelling the caller aborts the request.

        Raises:
            EngineError: when the client is closed or the engine cannot work at all.
        """
        if self._error is not None:
            raise self._error
        if request.id in self._asked:
            raise ValueError(f"the request {request.id} is being asked already")
        if not self._tasks:
            self._start()
        self._order += 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        asked = _Asked(request, dialogue, future, request, self._order)
        self._asked[request.id] = self._by_wire[request.id] = asked
        self._links[self._router.route(dialogue, self._loads)].push(asked)
        try:
            return await future
        finally:
            self._withdraw(asked)

    def release(self, dialogue: Hashable) -> None:
        """Forget which replica a dialogue has; call it in `finally`."""
        self._router.release(dialogue)

    async def abort(self, request_ids: Sequence[str]) -> None:
        """Give requests up: whoever waits for them gets the failure `aborted`."""
        for request_id in request_ids:
            asked = self._asked.get(request_id)
            if asked is not None:
                failure = Failure("aborted", "the request was given up")
                self._settle(asked, Answer(request_id, failure=failure))

    async def close(self) -> None:
        """End the client's tasks; whoever still waits gets an EngineError."""
        if self._error is None:
            self._fail_all(EngineError("the engine's client has been closed", permanent=True))
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answers."""
        return len(self._asked)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        for link in self._links.values():
            for work in (self._send_forever(link), self._poll_forever(link)):
                task = loop.create_task(work)
                task.add_done_callback(self._ended)
                self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A loop ends by `close` only; anything else is a bug that must not hang the walker."""
        if not task.cancelled() and task.exception() is not None:
            _log.error("the engine's client has failed", exc_info=task.exception())
            message = f"the engine's client has failed: {task.exception()!r}"
            self._fail_all(EngineError(message, permanent=True))

    async def _send_forever(self, link: _Link) -> None:
        while True:
            await link.wake_sender.wait()
            await asyncio.sleep(0)  # the rest of this tick's requests come along
            link.wake_sender.clear()
            if link.down_since is not None:
                first, longest = self._limits.backoff_s
                await asyncio.sleep(min(longest, first * 2 ** min(link.failures - 1, 16)))
            batch = self._take(link)
            try:
                await self._submit(link, batch)
            except (EngineError, TimeoutError) as error:
                link.requeue(batch)
                self._down(link, error)
            if link.pending and len(link.outstanding) < self._limits.in_flight:
                link.wake_sender.set()

    def _take(self, link: _Link) -> list[_Asked]:
        room = min(self._limits.batch, self._limits.in_flight - len(link.outstanding))
        batch: list[_Asked] = []
        while link.pending and len(batch) < room:
            asked = heapq.heappop(link.pending)[-1]
            if asked.future.done() or asked.link is not link:
                continue
            if asked.lives >= self._limits.lives:
                why = f"replicas have died {asked.lives} times while they worked on this request"
                failure = Failure("unavailable", f"{why}, {link.name} the last time")
                self._settle(asked, Answer(asked.request.id, failure=failure))
                continue
            asked.sent_under = ""
            link.outstanding[asked.wire.id] = asked
            batch.append(asked)
        return batch

    async def _submit(self, link: _Link, batch: Sequence[_Asked]) -> None:
        aborts, link.aborts = link.aborts, []
        if aborts:
            await self._bounded(link.replica.abort(self.name, aborts))
        if not batch and link.down_since is None:
            return
        requests = [asked.wire for asked in batch]
        incarnation = await self._bounded(link.replica.submit(self.name, requests))
        for asked in batch:
            asked.lives += incarnation != asked.life
            asked.sent_under = asked.life = incarnation
        self._met(link, incarnation)
        if not batch:  # that was a probe, and it was taken
            self._up(link)
        link.wake_poller.set()

    async def _poll_forever(self, link: _Link) -> None:
        while True:
            while not link.outstanding or not link.incarnation:
                link.wake_poller.clear()
                await link.wake_poller.wait()
            try:
                poll = link.replica.poll(self.name, link.acknowledged, self._limits.poll_s)
                polled = await self._bounded(poll, self._limits.poll_s)
            except (EngineError, TimeoutError) as error:
                link.requeue(link.outstanding.values())
                link.incarnation = ""
                self._down(link, error)
                continue
            self._up(link)
            if not polled.incarnation:  # it does not know this client: it has lost everything
                link.requeue(link.outstanding.values())
                link.incarnation = ""
                continue
            self._met(link, polled.incarnation)
            self._receive(link, polled)
            if not polled.answers:  # nothing for long: whatever was lost on the way is sent again
                link.requeue(link.outstanding.values())

    def _receive(self, link: _Link, polled: Polled) -> None:
        for sequence, answer in polled.answers:
            link.acknowledged = sequence
            link.outstanding.pop(answer.id, None)
            asked = self._by_wire.get(answer.id)
            if asked is not None:  # else it was given up, or answered by another replica
                self._answered(asked, answer)
        if link.pending:
            link.wake_sender.set()

    def _answered(self, asked: _Asked, answer: Answer) -> None:
        failure = answer.failure
        if failure is None or failure.permanent or asked.tries >= self._limits.tries:
            self._settle(asked, answer)
            return
        self._withdraw(asked, forget=False)
        asked.tries += 1
        self.sent_again += 1
        asked.wire = replace(asked.request, id=f"{asked.request.id}~{asked.tries}")
        self._by_wire[asked.wire.id] = asked
        self._links[self._router.route(asked.dialogue, self._loads)].push(asked)

    def _settle(self, asked: _Asked, answer: Answer) -> None:
        if not asked.future.done():
            asked.future.set_result(
                answer if answer.id == asked.request.id else replace(answer, id=asked.request.id)
            )
        self._withdraw(asked)

    def _withdraw(self, asked: _Asked, forget: bool = True) -> None:
        """Take a request out of the books; tell the replica when it still works on it."""
        if forget and self._asked.get(asked.request.id) is asked:
            del self._asked[asked.request.id]
        if self._by_wire.get(asked.wire.id) is asked:
            del self._by_wire[asked.wire.id]
        link = asked.link
        if link is not None and link.outstanding.get(asked.wire.id) is asked:
            del link.outstanding[asked.wire.id]
            link.aborts.append(asked.wire.id)
            link.wake_sender.set()

    def _met(self, link: _Link, incarnation: str) -> None:
        if incarnation != link.incarnation:
            if link.incarnation:
                _log.warning("the replica %s has started anew", link.name)
            link.incarnation = incarnation
            sent = link.outstanding.values()
            link.requeue(asked for asked in sent if asked.sent_under != incarnation)

    def _up(self, link: _Link) -> None:
        if link.down_since is not None:
            _log.warning("the replica %s answers again", link.name)
            link.down_since = None
            link.failures = 0
            link.lost = False
            self._loads[link.name] = 0.0

    def _down(self, link: _Link, error: EngineError | TimeoutError) -> None:
        """Move a replica's requests to the others, or give them up after a while."""
        now = self._clock()
        link.failures += 1
        if link.down_since is None:
            link.down_since = now
            _log.warning("the replica %s does not answer: %s", link.name, _words(error))
        link.lost = isinstance(error, EngineError) and error.permanent
        if link.lost or link.failures > 1:
            self._loads[link.name] = math.inf
        if isinstance(error, EngineError) and all(other.lost for other in self._links.values()):
            self._fail_all(error)
        elif self._loads[link.name] < math.inf:
            pass  # perhaps it only hiccuped
        elif min(self._loads.values()) < math.inf:
            for asked in self._drain(link):
                self._links[self._router.route(asked.dialogue, self._loads)].push(asked)
        elif now - link.down_since >= self._limits.give_up_s:
            for asked in self._drain(link):
                why = f"the replica {link.name} cannot be reached: {_words(error)}"
                failure = Failure("unavailable", why)
                self._settle(asked, Answer(asked.request.id, failure=failure))
        link.wake_sender.set()  # it probes until the replica is back

    def _drain(self, link: _Link) -> list[_Asked]:
        link.requeue(link.outstanding.values())
        pending, link.pending = link.pending, []
        drained = {entry[-1].order: entry[-1] for entry in sorted(pending, key=lambda e: e[:3])}
        return [a for a in drained.values() if a.link is link and not a.future.done()]

    def _fail_all(self, error: EngineError) -> None:
        self._error = error
        for asked in list(self._asked.values()):
            if not asked.future.done():
                asked.future.set_exception(error)

    async def _bounded(self, call: Coroutine[Any, Any, T], more_s: float = 0.0) -> T:
        # Not wait_for: before Python 3.12 it may swallow the cancellation by `close`.
        async with asyncio.timeout(self._limits.call_s + more_s):
            return await call


def _words(error: EngineError | TimeoutError) -> str:
    return str(error) or "no answer in time"
