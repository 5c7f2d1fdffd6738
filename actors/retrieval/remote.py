"""The retriever as a Ray actor, and what conversations hold of it.

Invariants: the actor's constructor does nothing that can fail (an error there during a restart
ends an actor for good); searches are idempotent, so one that died with the actor, or that the store
did not answer, is asked again; a call ends within its deadline, and by nothing else, while what is
in the way may pass; what cannot succeed is not tried again; an error of one call is that call's
own, however many were sent together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from actors.gathering import Gathering
from actors.laps import RETRIEVAL, spent
from actors.metrics import begin_recording, retriever_readings
from actors.options import ACTOR_OPTIONS
from actors.orphans import end_when_orphaned
from actors.retrieval.request import SearchPage, SearchRequest
from actors.retrieval.retriever import LocalRetriever, RetrieverStats
from actors.retrieval.store import Corpus, UnreachableError
from specs.errors import DuologueError, RetrievalError
from specs.run_file import RetrievalSection

if TYPE_CHECKING:
    from actors.retrieval.embedding import Vectors

DEADLINE_S = 120.0
"""For one call with all its attempts; a restart with its model takes about ten seconds."""

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 4.0

GATHER_S = 0.005
"""How long a call may wait for others: a call by itself costs more than what is asked of it."""

OPTIONS: dict[str, Any] = {**ACTOR_OPTIONS, "max_restarts": -1, "max_concurrency": 4000}
"""Of the actor; the engines need the cores, and the retriever takes one thread of what is left."""


Method = Literal["search", "embed", "similarity"]

Call = tuple[Method, tuple[Any, ...]]
"""A method of a `Retriever`, and its arguments."""


class NotLoadedError(RetrievalError):
    """The actor has no corpus: it is new, or Ray has just brought it back."""


class _GoneError(RetrievalError):
    """The actor cannot be reached: Ray may be bringing it back."""


class RetrieverActor:
    """A `LocalRetriever` behind Ray.

    The corpus comes with `start` and not with the constructor: Ray lets go of a constructor's
    arguments in its object store, and a restart would not find them.
    """

    def __init__(self, section: RetrievalSection) -> None:
        end_when_orphaned()
        self._section = section
        self._retriever: LocalRetriever | None = None
        self._recording: asyncio.Task[None] | None = None

    async def start(self, corpus: Corpus) -> None:
        """Load the model and fill the store; raises RetrievalError."""
        if self._retriever is None:
            self._retriever = LocalRetriever(corpus, self._section)
            self._recording = begin_recording(self.stats, retriever_readings)
        await self._retriever.start()

    async def answer(self, calls: Sequence[Call]) -> list[Any]:
        """Return the outcome of each call of a `Retriever`'s methods: its answer, or its error.

        Raises:
            NotLoadedError: none of them can be answered.
        """
        retriever = self._ready()
        made = (getattr(retriever, method)(*arguments) for method, arguments in calls)
        return list(await asyncio.gather(*made, return_exceptions=True))

    async def stats(self) -> RetrieverStats:
        """Return what has been done so far, and what waits."""
        return self._retriever.stats() if self._retriever is not None else RetrieverStats()

    def _ready(self) -> LocalRetriever:
        if self._retriever is None:
            raise NotLoadedError("the retriever has no corpus yet")
        return self._retriever


def start_actor(section: RetrievalSection, **options: Any) -> Any:
    """Create the actor and return its handle; it loads at `start`.

    Args:
        options: of the actor, over `OPTIONS` (name, placement).
    """
    import ray

    actor = ray.remote(RetrieverActor)
    return actor.options(**{**OPTIONS, **options}).remote(section)


class RetrieverClient:
    """A `Retriever` that asks an actor, again where the actor died and Ray brings it back."""

    def __init__(self, handle: Any, corpus: Corpus, deadline_s: float = DEADLINE_S) -> None:
        self._handle = handle
        self._corpus = corpus
        self._deadline_s = deadline_s
        self._loading: asyncio.Task[None] | None = None
        self._calls: Gathering[Call] = Gathering(self._answers, GATHER_S)

    async def start(self, deadline_s: float = 600.0) -> None:
        """Load now rather than at the first search; raises RetrievalError."""
        await self._patiently("start", self._start, deadline_s, (_GoneError,))

    async def search(self, request: SearchRequest) -> SearchPage:
        """Return one page (`Retriever.search`)."""
        page: SearchPage = await self._call("search", request)
        return page

    async def embed(self, texts: tuple[str, ...]) -> Vectors:
        """Return one normalized row a text."""
        vectors: Vectors = await self._call("embed", texts)
        return vectors

    async def similarity(self, one: tuple[str, ...], other: tuple[str, ...]) -> Vectors:
        """Return the cosines, shape (len(one), len(other))."""
        cosines: Vectors = await self._call("similarity", one, other)
        return cosines

    async def _call(self, method: Method, *arguments: Any) -> Any:
        began = time.perf_counter()
        passing = (_GoneError, UnreachableError)
        asking = partial(self._answer, (method, arguments))
        answer = await self._patiently(method, asking, self._deadline_s, passing)
        spent(RETRIEVAL, began)
        return answer

    async def _patiently(
        self,
        what: str,
        attempt: Callable[[], Awaitable[Any]],
        seconds: float,
        passing: tuple[type[RetrievalError], ...],
    ) -> Any:
        """Try until it succeeds, while what is in the way may pass."""
        ends = time.monotonic() + seconds
        pause = FIRST_PAUSE_S
        reason = RetrievalError(
            f"the retriever has not answered {what!r} for {seconds:g} s: look whether the server "
            "of retrieval.url answers, where the run file names one, or raise walkers.retrievers"
        )
        while True:
            try:
                async with asyncio.timeout(max(ends - time.monotonic(), 0)):
                    return await attempt()
            except TimeoutError:
                raise reason from None
            except passing as error:
                reason = error
                if time.monotonic() + pause > ends:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _answer(self, call: Call) -> Any:
        while True:
            try:
                return await self._calls.ask(call)
            except NotLoadedError:
                await self._load()

    async def _load(self) -> None:
        """Load once for all that wait: each call would carry the whole corpus."""
        loading = self._loading
        if loading is None or loading.done():
            loading = self._loading = asyncio.ensure_future(self.start())
            loading.add_done_callback(_seen)
        await asyncio.shield(loading)

    async def _start(self) -> None:
        await self._reach("start", self._corpus)

    async def _answers(self, calls: Sequence[Call]) -> list[Any]:
        outcomes: list[Any] = await self._reach("answer", calls)
        return [
            _told(outcome, method) if isinstance(outcome, BaseException) else outcome
            for (method, _), outcome in zip(calls, outcomes, strict=True)
        ]

    async def _reach(self, method: str, argument: Any) -> Any:
        from ray.exceptions import RayError, RayTaskError

        try:
            return await getattr(self._handle, method).remote(argument)
        except RayTaskError as error:
            raise _told(getattr(error, "cause", None) or error, method) from None
        except RayError as error:
            why = f"the retriever's actor does not come back ({_first_line(error)})"
            raise _GoneError(why) from error


def _seen(loading: asyncio.Task[None]) -> None:
    if not loading.cancelled():
        loading.exception()


def _told(error: BaseException, method: str) -> DuologueError:
    if isinstance(error, DuologueError):
        return error
    return RetrievalError(f"the retriever failed in {method!r}: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
