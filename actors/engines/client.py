"""How walkers ask an engine: micro-batches to its replicas, answers by long poll.

Invariants: a request that was asked gets exactly one answer, a failure at the worst; which replica
it goes to is the router's decision, and until it is sent it may go to another; what a replica may
have lost (it has a new incarnation, or could not be reached) is submitted again under the same id,
which does no harm; tries are capped, and what cannot succeed is not tried again. Replicas come and
go; what runs at one that goes is answered, or moved.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from actors.engines.answer_log import lull
from actors.engines.link import Asked, Link
from actors.engines.routing import Router
from specs.engine import Answer, Failure, Load, Polled, Replica, Request
from specs.errors import EngineError

_log = logging.getLogger(__name__)
_HELD_S = 0.2
"""Waiting longer than this to be sent is told as waiting in the engine's queue."""

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
        sound_s: how often a replica that is not used is asked for its load.
    """

    batch: int = 256
    in_flight: int = 4096
    tries: int = 3
    lives: int = 6
    give_up_s: float = 600.0
    backoff_s: tuple[float, float] = (0.1, 5.0)
    poll_s: float = 20.0
    call_s: float = 60.0
    sound_s: float = 1.0


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
        self._router = Router(replicas, self.name)
        self._links = {key: Link(key, replica, self._router) for key, replica in replicas.items()}
        self._asked: dict[str, Asked] = {}
        self._by_wire: dict[str, Asked] = {}
        self._order = 0
        self._takes_s = 0.0
        self._sounding: asyncio.Task[None] | None = None
        self._error: EngineError | None = None
        self.sent_again = 0  # requests, after failures that may pass

    async def ask(self, request: Request, dialogue: Hashable) -> Answer:
        """Return the request's answer; a failure is an answer too.

        Cancelling the caller aborts the request. What it waited here is a part of its `queue_s`.

        Raises:
            EngineError: when the client is closed or the engine cannot work at all.
        """
        if self._error is not None:
            raise self._error
        if request.id in self._asked:
            raise ValueError(f"the request {request.id} is being asked already")
        self._order += 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        places = max(1, request.sampling.n)
        asked = Asked(request, dialogue, future, request, self._order, places)
        self._asked[request.id] = self._by_wire[request.id] = asked
        self._place(asked)
        try:
            return await future
        finally:
            self._withdraw(asked)

    def release(self, dialogue: Hashable) -> None:
        """Forget which replicas a dialogue's sides have; call it in `finally`."""
        self._router.release(dialogue)

    def set_replicas(self, replicas: Mapping[str, Replica]) -> None:
        """Use these from now on.

        New ones are used at once. Those that are missing get nothing more: what waits for them goes
        elsewhere, and what they work on is answered, or moved when they fail.

        Raises:
            ValueError: when there is none.
        """
        self._router.set_replicas(replicas)
        for name, replica in replicas.items():
            link = self._links.get(name)
            if link is None:
                self._links[name] = Link(name, replica, self._router)
            else:
                link.replica, link.leaving = replica, False
        for name, link in list(self._links.items()):
            if name in replicas:
                self._relieve(link)
                continue
            link.leaving = True
            self._send_on(link)
            self._end_if_left(link)

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
        tasks = [task for link in self._links.values() for task in link.tasks]
        if self._sounding is not None:
            tasks.append(self._sounding)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answers."""
        return len(self._asked)

    # -- where requests go

    def _place(self, asked: Asked) -> None:
        """Let a request wait for the replica that its side has now."""
        name = self._router.route(asked.dialogue, asked.request.role)
        self._push(self._links[name], asked)

    def _push(self, link: Link, asked: Asked) -> None:
        if not link.tasks:
            link.tasks = [
                self._spawn(self._send_forever(link)),
                self._spawn(self._poll_forever(link)),
            ]
        if self._sounding is None:
            self._sounding = self._spawn(self._sound_forever())
        link.push(asked, self._clock())

    def _relieve(self, link: Link) -> None:
        """Let a replica that has room take over what waits for a fuller one."""
        found = self._router.relief(link.name)
        if found is not None:
            fullest, places = found
            for asked in self._links[fullest].give(places):
                self._router.move(asked.dialogue, asked.request.role, link.name)
                self._push(link, asked)

    def _send_on(self, link: Link) -> None:
        """Let all that waits for a replica wait for others."""
        for asked in link.give():
            self._place(asked)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A loop ends by being cancelled; anything else is a bug that must hang no walker."""
        if not task.cancelled() and task.exception() is not None:
            _log.error("the engine's client has failed", exc_info=task.exception())
            message = f"the engine's client has failed: {task.exception()!r}"
            self._fail_all(EngineError(message, permanent=True))

    def _end_if_left(self, link: Link) -> None:
        if link.leaving and link.idle and self._links.get(link.name) is link:
            del self._links[link.name]
            for task in link.tasks:
                task.cancel()

    # -- the way there

    async def _send_forever(self, link: Link) -> None:
        while True:
            await link.wake_sender.wait()
            await asyncio.sleep(lull(self._takes_s))  # so that more requests come along
            link.wake_sender.clear()
            if link.down_since is not None:
                first, longest = self._limits.backoff_s
                await asyncio.sleep(min(longest, first * 2 ** min(link.failures - 1, 16)))
            batch = self._take(link)
            try:
                await self._submit(link, batch)
            except (EngineError, TimeoutError) as error:
                link.requeue(batch, self._clock())
                self._down(link, error)
            if batch and link.pending:
                link.wake_sender.set()
            self._end_if_left(link)

    def _take(self, link: Link) -> list[Asked]:
        if link.leaving:
            self._send_on(link)
            return []
        room = min(self._limits.batch, self._limits.in_flight - len(link.outstanding))
        batch = link.take(room, self._clock())
        doomed = [asked for asked in batch if asked.lives >= self._limits.lives]
        for asked in doomed:
            link.unsend(asked)
            why = f"replicas have died {asked.lives} times while they worked on this request"
            failure = Failure("unavailable", f"{why}, {link.name} the last time")
            self._settle(asked, Answer(asked.request.id, failure=failure))
        return [asked for asked in batch if asked not in doomed] if doomed else batch

    async def _submit(self, link: Link, batch: Sequence[Asked]) -> None:
        aborts, link.aborts = link.aborts, []
        if aborts:
            await self._bounded(link.replica.abort(self.name, aborts))
        if not batch and link.down_since is None:
            return
        requests = [asked.wire for asked in batch]
        taken = await self._bounded(link.replica.submit(self.name, requests))
        for asked in batch:
            asked.lives += taken.incarnation != asked.life
            asked.sent_under = asked.life = taken.incarnation
        self._met(link, taken.incarnation)
        if not batch:  # that was a probe, and it was taken
            self._up(link)
        self._hear(link, taken.load)
        link.wake_poller.set()

    # -- the way back

    async def _poll_forever(self, link: Link) -> None:
        while True:
            while not link.outstanding or not link.incarnation:
                link.wake_poller.clear()
                await link.wake_poller.wait()
            try:
                poll = link.replica.poll(self.name, link.acknowledged, self._limits.poll_s)
                polled = await self._bounded(poll, self._limits.poll_s)
            except (EngineError, TimeoutError) as error:
                self._forgotten(link)
                self._down(link, error)
                self._end_if_left(link)
                continue
            self._up(link)
            if not polled.incarnation:  # it does not know this client: it has lost everything
                self._forgotten(link)
                continue
            self._met(link, polled.incarnation)
            self._receive(link, polled)
            if not polled.answers:  # nothing for long: whatever was lost on the way is sent again
                link.requeue(link.outstanding.values(), self._clock())
            self._hear(link, polled.load)
            self._end_if_left(link)

    def _forgotten(self, link: Link) -> None:
        link.requeue(link.outstanding.values(), self._clock())
        link.incarnation = ""

    def _receive(self, link: Link, polled: Polled) -> None:
        for sequence, answer in polled.answers:
            link.acknowledged = sequence
            sent = link.outstanding.get(answer.id)
            if sent is not None:
                link.unsend(sent)
                sent.sent_under = ""
            asked = self._by_wire.get(answer.id)
            if asked is not None:  # else it was given up, or answered by another replica
                self._answered(asked, answer)

    def _hear(self, link: Link, load: Load) -> None:
        self._router.tell(link.name, load)
        self._relieve(link)
        if link.pending:
            link.wake_sender.set()

    async def _sound_forever(self) -> None:
        """Ask replicas that are not used how full they are: an empty one is used from then on."""
        while True:
            await asyncio.sleep(self._limits.sound_s)
            name = self._router.next_to_sound()
            link = self._links.get(name) if name is not None else None
            if link is None:
                continue
            try:
                # Under a name that never submits: such a client is answered at once.
                polled = await self._bounded(link.replica.poll(f"{self.name}?", 0, 0.0))
            except (EngineError, TimeoutError):
                continue
            self._hear(link, polled.load)

    def _answered(self, asked: Asked, answer: Answer) -> None:
        self._takes_s += 0.05 * (answer.prefill_s + answer.decode_s - self._takes_s)
        failure = answer.failure
        if failure is None or failure.permanent or asked.tries >= self._limits.tries:
            self._settle(asked, answer)
            return
        self._withdraw(asked, forget=False)
        asked.tries += 1
        self.sent_again += 1
        asked.wire = replace(asked.request, id=f"{asked.request.id}~{asked.tries}")
        self._by_wire[asked.wire.id] = asked
        self._place(asked)

    def _settle(self, asked: Asked, answer: Answer) -> None:
        if not asked.future.done():
            if answer.id != asked.request.id or asked.held_s >= _HELD_S:
                queued = answer.queue_s + asked.held_s
                answer = replace(answer, id=asked.request.id, queue_s=queued)
            asked.future.set_result(answer)
        self._withdraw(asked)

    def _withdraw(self, asked: Asked, forget: bool = True) -> None:
        """Take a request out of the books; tell the replica when it still works on it."""
        if forget and self._asked.get(asked.request.id) is asked:
            del self._asked[asked.request.id]
        if self._by_wire.get(asked.wire.id) is asked:
            del self._by_wire[asked.wire.id]
        link = asked.link
        if link is not None and link.leave(asked):
            link.aborts.append(asked.wire.id)
            link.wake_sender.set()

    # -- replicas that fail

    def _met(self, link: Link, incarnation: str) -> None:
        if incarnation != link.incarnation:
            if link.incarnation:
                _log.warning("the replica %s has started anew", link.name)
            link.incarnation = incarnation
            sent = link.outstanding.values()
            link.requeue([a for a in sent if a.sent_under != incarnation], self._clock())

    def _up(self, link: Link) -> None:
        if link.down_since is not None:
            _log.warning("the replica %s answers again", link.name)
            link.down_since = None
            link.failures = 0
            link.lost = False
            self._router.down(link.name, False)

    def _down(self, link: Link, error: EngineError | TimeoutError) -> None:
        """Move a replica's requests to the others, or give them up after a while."""
        now = self._clock()
        link.failures += 1
        if link.down_since is None:
            link.down_since = now
            _log.warning("the replica %s does not answer: %s", link.name, _words(error))
        link.lost = isinstance(error, EngineError) and error.permanent
        if link.leaving:
            link.aborts.clear()
            link.requeue(link.outstanding.values(), now)
            self._send_on(link)
            return
        if link.lost or link.failures > 1:
            self._router.down(link.name)
        stay = [other for other in self._links.values() if not other.leaving]
        if isinstance(error, EngineError) and all(other.lost for other in stay):
            self._fail_all(error)
        elif not self._router.is_down(link.name):
            pass  # perhaps it only hiccuped
        elif not self._router.all_down:
            link.requeue(link.outstanding.values(), now)
            self._send_on(link)
        elif now - link.down_since >= self._limits.give_up_s:
            link.requeue(link.outstanding.values(), now)
            for asked in link.give():
                why = f"the replica {link.name} cannot be reached: {_words(error)}"
                failure = Failure("unavailable", why)
                self._settle(asked, Answer(asked.request.id, failure=failure))
        link.wake_sender.set()  # it probes until the replica is back

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
