"""Search for conversations, in this process: everything that blocks happens in one thread.

Invariants: a request is answered by its own draws and by the corpus alone, so that any replica
gives the same page; whatever waits when the thread is free is embedded in one batch; an error of
one request is that request's own, but for a server out of reach: what waits for it fails with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from actors.retrieval import planting
from actors.retrieval.embedding import (
    Embedder,
    Vectors,
    corpus_vectors,
    load_embedder,
    vectors_digest,
)
from actors.retrieval.request import SearchPage, SearchRequest
from actors.retrieval.store import Corpus, DocumentStore, Hit, Server, UnreachableError
from specs.errors import DuologueError, RetrievalError
from specs.run_file import RetrievalSection

BATCH = 64
"""Most requests embedded at once."""

REMEMBERED = 4096
"""Texts whose vectors are remembered."""


class SearchCore:
    """The embedding model and the store; blocking, for one thread."""

    def __init__(self, embedder: Embedder, store: DocumentStore) -> None:
        self._embedder = embedder
        self._store = store
        self._remembered: OrderedDict[str, Vectors] = OrderedDict()

    @classmethod
    def load(cls, corpus: Corpus, section: RetrievalSection) -> SearchCore:
        """Load the model, and fill the store where it is not; raises RetrievalError."""
        embedder = load_embedder(section.embedding)
        server = Server(section.url, section.key_env) if section.url else None
        store = DocumentStore.open(
            corpus,
            vectors_digest(embedder, corpus.texts),
            lambda: corpus_vectors(embedder, corpus.texts),
            server,
        )
        return cls(embedder, store)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return one row a text; texts seen lately are not embedded again."""
        # A model may write half a surrogate pair, which no tokenizer takes.
        texts = [text.encode(errors="replace").decode() for text in texts]
        missing = [text for text in dict.fromkeys(texts) if text not in self._remembered]
        if missing:
            for text, vector in zip(missing, self._embedder.encode(missing), strict=True):
                self._remembered[text] = vector
        found = []
        for text in texts:
            self._remembered.move_to_end(text)
            found.append(self._remembered[text])
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return np.stack(found) if found else np.zeros((0, 0), dtype=np.float32)

    def page(self, request: SearchRequest) -> SearchPage:
        """Return one page of a search or of suggestions."""
        request.require_known(self._store)
        if request.query is None:
            known = request.among_of(self._store.corpus.ids)
            drawn = planting.suggestions(known, request.apart, request.draws)
            ids = request.page_of(drawn, str)
            return SearchPage(tuple(ids), (1.0,) * len(ids))
        vector = self.embed([request.query])[0]

        def others(offset: int, limit: int) -> list[Hit]:
            return self._store.search(
                vector, offset, limit, request.apart, request.min_score, request.among
            )

        hits = request.page_of(others, lambda id_: Hit(id_, self._store.similarity(vector, id_)))
        return SearchPage(tuple(hit.id for hit in hits), tuple(hit.score for hit in hits))

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()


@dataclass(slots=True)
class RetrieverStats:
    """What a retriever has done since its start, and what waits for its thread now.

    Attributes:
        texts: that were to be embedded, those of searches among them.
        busy_s: of the thread, loading included.
    """

    searches: int = 0
    texts: int = 0
    busy_s: float = 0.0
    waiting: int = 0


@dataclass(slots=True)
class _Job:
    """Something asked of the thread: a search, or texts to embed."""

    asked: SearchRequest | tuple[str, ...]
    answer: Future[Any]

    @property
    def texts(self) -> tuple[str, ...]:
        if isinstance(self.asked, SearchRequest):
            return (self.asked.query,) if self.asked.query is not None else ()
        return self.asked

    def fail(self, error: Exception) -> None:
        """Tell whoever asked."""
        if isinstance(error, DuologueError):
            self.answer.set_exception(error)
        else:
            message = f"the retriever failed: {type(error).__name__}: {error}"
            self.answer.set_exception(RetrievalError(message))


class LocalRetriever:
    """A `Retriever` in this process; starts when it is first asked."""

    def __init__(self, corpus: Corpus, section: RetrievalSection) -> None:
        self._corpus = corpus
        self._section = section
        self._core: SearchCore | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="retriever")
        self._jobs: deque[_Job] = deque()
        self._stopped = False
        self._counts = RetrieverStats()

    async def start(self) -> None:
        """Load the model and fill the store; once, however often it is called."""
        await self.embed(())

    async def search(self, request: SearchRequest) -> SearchPage:
        """Return one page (`Retriever.search`)."""
        page: SearchPage = await self._ask(request)
        return page

    async def embed(self, texts: tuple[str, ...]) -> Vectors:
        """Return one normalized row a text."""
        vectors: Vectors = await self._ask(tuple(texts))
        return vectors

    async def similarity(self, one: tuple[str, ...], other: tuple[str, ...]) -> Vectors:
        """Return the cosines, shape (len(one), len(other))."""
        if not one or not other:
            return np.zeros((len(one), len(other)), dtype=np.float32)
        vectors = await self.embed((*one, *other))
        return np.asarray(vectors[: len(one)] @ vectors[len(one) :].T, dtype=np.float32)

    def stats(self) -> RetrieverStats:
        """Return what has been done, and what waits."""
        return replace(self._counts, waiting=len(self._jobs))

    async def stop(self) -> None:
        """Answer what waits, then let go of the store; the retriever is of no use afterwards."""
        if not self._stopped:
            self._stopped = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown(wait=False)

    async def _ask(self, asked: SearchRequest | tuple[str, ...]) -> Any:
        job = _Job(asked, Future())
        if self._stopped:
            raise RetrievalError("the retriever has been stopped")
        self._jobs.append(job)
        self._thread.submit(self._serve)
        return await asyncio.wrap_future(job.answer)

    # -- in the thread

    def _load(self) -> SearchCore:
        if self._core is None:
            self._core = SearchCore.load(self._corpus, self._section)
        return self._core

    def _close(self) -> None:
        if self._core is not None:
            self._core.close()

    def _serve(self) -> None:
        jobs = self._taken(BATCH)
        if not jobs:
            return
        began, counts = time.perf_counter(), self._counts
        counts.searches += sum(isinstance(job.asked, SearchRequest) for job in jobs)
        counts.texts += sum(len(job.texts) for job in jobs)
        self._answer(jobs)
        counts.busy_s += time.perf_counter() - began

    def _answer(self, jobs: list[_Job]) -> None:
        try:
            core = self._load()
            core.embed([text for job in jobs for text in job.texts])
        except Exception as error:  # noqa: BLE001 - each caller gets it
            if isinstance(error, UnreachableError):  # nothing can be done without the store
                jobs += self._taken(len(self._jobs))
            for job in jobs:
                job.fail(error)
            return
        waiting = deque(jobs)
        while waiting:
            job = waiting.popleft()
            try:
                job.answer.set_result(
                    core.page(job.asked)
                    if isinstance(job.asked, SearchRequest)
                    else core.embed(job.asked)
                )
            except UnreachableError as error:
                job.fail(error)
                waiting = self._without_searches([*waiting], error)
            except Exception as error:  # noqa: BLE001 - its caller gets it
                job.fail(error)

    def _taken(self, most: int) -> list[_Job]:
        """Return what waits, without what nobody waits for any more."""
        jobs: list[_Job] = []
        while self._jobs and len(jobs) < most:
            job = self._jobs.popleft()
            if job.answer.set_running_or_notify_cancel():
                jobs.append(job)
        return jobs

    def _without_searches(self, jobs: Sequence[_Job], error: UnreachableError) -> deque[_Job]:
        """Fail all searches that wait, each of which would find out by itself; return the rest."""
        rest: deque[_Job] = deque()
        for job in (*jobs, *self._taken(len(self._jobs))):
            if isinstance(job.asked, SearchRequest) and job.texts:  # suggestions need no server
                job.fail(error)
            else:
                rest.append(job)
        return rest
