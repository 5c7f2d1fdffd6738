"""Documents by similarity, in Qdrant: in memory, or on a server with the same code.

Invariants: a collection's name covers its documents and vectors, and a point's id is the
document's place in the corpus, so filling it twice, or two processes filling it at once, leaves
the same points. Search is exact: the same query gives the same ranking on every replica and in
every resumed run. Calls block: the retriever makes them in its own thread.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from actors.retrieval.embedding import Vectors
from specs import seeds
from specs.domain import Document
from specs.errors import RetrievalError
from specs.masking import Place

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

T = TypeVar("T")

ATTEMPTS = 3
BACKOFF_S = 0.5
TIMEOUT_S = 20
FILL_ROWS = 256
_MEMORY = Place("memory", ())


class UnreachableError(RetrievalError):
    """The server does not answer at all: whatever else is asked now would wait as long in vain."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found; `score` is the cosine of its vector and the query's."""

    id: str
    score: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """What retrieval needs of the documents: ids, and the texts that are embedded, in order."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, documents: Sequence[Document]) -> Corpus:
        """Return the corpus of a domain's documents."""
        return cls(tuple(d.id for d in documents), tuple(d.embed for d in documents))


@dataclass(frozen=True, slots=True)
class Server:
    """A Qdrant server; `key_env` names the environment variable that holds its key."""

    url: str
    key_env: str | None = None


class DocumentStore:
    """The documents of one corpus, searched by vector."""

    def __init__(self, corpus: Corpus, collection: str, server: Server | None) -> None:
        from qdrant_client import models

        self.corpus = corpus
        key = _read_key(server) if server is not None else ""
        self._place = Place.of(server.url, key) if server is not None else _MEMORY
        self._client = _connect(server, key, self._place)
        self._collection = collection
        # In memory every search is exact, and asking for it is warned about.
        self._exact = models.SearchParams(exact=True) if server is not None else None
        self._numbers = {id_: number for number, id_ in enumerate(corpus.ids)}
        self._vectors: OrderedDict[int, Vectors] = OrderedDict()

    @classmethod
    def open(
        cls,
        corpus: Corpus,
        digest: str,
        vectors: Callable[[], Vectors],
        server: Server | None = None,
    ) -> DocumentStore:
        """Return a store that holds the corpus, filled where it was not.

        Args:
            digest: of the vectors (`embedding.vectors_digest`).
            vectors: makes them, one row a document; called only when the store lacks them.
            server: where the documents live; None for this process's memory.

        Raises:
            RetrievalError: when the server does not answer, or refuses.
        """
        store = cls(corpus, f"duologue-{seeds.digest(digest, *corpus.ids)[:32]}", server)
        store.fill(vectors)
        return store

    def fill(self, make: Callable[[], Vectors]) -> None:
        """Make the collection and put in what is missing; harmless to do twice, or two at once."""
        from qdrant_client import models

        if not self.corpus.ids or self._complete():
            return
        vectors = make()
        if len(vectors) != len(self.corpus.ids):
            raise ValueError(f"{len(vectors)} vectors of {len(self.corpus.ids)} documents")
        self._create(vectors.shape[1])
        for start in range(0, len(vectors), FILL_ROWS):
            rows = range(start, min(start + FILL_ROWS, len(vectors)))
            batch = models.Batch(
                ids=list(rows),
                vectors=vectors[rows.start : rows.stop].tolist(),
                payloads=[{"id": self.corpus.ids[row]} for row in rows],
            )
            self._ask(partial(self._client.upsert, self._collection, batch, wait=True))

    def search(
        self,
        vector: Vectors,
        offset: int,
        limit: int,
        exclude: Collection[str] = (),
        min_score: float | None = None,
        among: Collection[str] | None = None,
    ) -> list[Hit]:
        """Return the hits `offset` to `offset + limit` of the ranking without the excluded ids.

        Args:
            vector: the query's, of shape (size,) and length 1.
            min_score: hits below it are left out.
            among: the ids that are looked through, each one of the corpus's; None for all.
        """
        known = len(self.corpus.ids if among is None else among)
        reach = min(offset + limit + len(exclude), known)
        if limit < 1 or offset >= reach:
            return []
        answer = self._ask(
            lambda: self._client.query_points(
                self._collection,
                query=vector.tolist(),
                query_filter=self._only(among),
                limit=reach,
                with_payload=False,
                score_threshold=min_score,
                search_params=self._exact,
            ),
            filled=True,
        )
        hits = [Hit(self.corpus.ids[int(point.id)], point.score) for point in answer.points]
        return [hit for hit in hits if hit.id not in exclude][offset : offset + limit]

    def _only(self, among: Collection[str] | None) -> models.Filter | None:
        from qdrant_client import models

        if among is None:
            return None
        known = models.HasIdCondition(has_id=[self._numbers[id_] for id_ in sorted(among)])
        return models.Filter(must=[known])

    def similarity(self, vector: Vectors, id_: str) -> float:
        """Return the cosine of the query's vector and a document's; KeyError for an unknown id."""
        number = self._numbers[id_]
        if number not in self._vectors:
            points = self._ask(
                lambda: self._client.retrieve(
                    self._collection, [number], with_payload=False, with_vectors=True
                ),
                filled=True,
            )
            if not points:
                raise RetrievalError(
                    f"{self._place}: the collection {self._collection} has lost document {id_!r}; "
                    "start again to fill it"
                )
            self._vectors[number] = np.asarray(points[0].vector, dtype=np.float32)
            if len(self._vectors) > 4096:
                self._vectors.popitem(last=False)
        return float(self._vectors[number] @ vector)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._numbers

    def close(self) -> None:
        """Let go of the client."""
        self._client.close()

    def _exists(self) -> bool:
        return self._ask(lambda: self._client.collection_exists(self._collection))

    def _complete(self) -> bool:
        if not self._exists():
            return False
        found = self._ask(lambda: self._client.count(self._collection, exact=True))
        return found.count == len(self.corpus.ids)

    def _create(self, size: int) -> None:
        from qdrant_client import models

        if self._exists():
            return
        params = models.VectorParams(size=size, distance=models.Distance.DOT)
        try:
            self._ask(lambda: self._client.create_collection(self._collection, params))
        except (RetrievalError, ValueError):  # another process may have made it in the meantime
            if not self._exists():
                raise

    def _ask(self, call: Callable[[], T], filled: bool = False) -> T:
        """Call the client: again when the server is out of reach or busy, never when it refuses.

        Args:
            filled: the call is about the collection, which was there when the store was opened.
        """
        from qdrant_client.http.exceptions import ApiException

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return call()
            except (ApiException, OSError) as error:
                if attempt == ATTEMPTS or not _passing(error):
                    raise self._failure(error, filled) from error
                time.sleep(BACKOFF_S * attempt)
        raise AssertionError("unreachable")

    def _failure(self, error: Exception, filled: bool) -> RetrievalError:
        status = _status(error)
        if filled and status == 404:
            return RetrievalError(
                f"the Qdrant server at {self._place} has lost the collection {self._collection}; "
                "start again to fill it"
            )
        kind = UnreachableError if status is None else RetrievalError
        return kind(_explained(self._place, error))


def _status(error: Exception) -> int | None:
    """Return the status that the server answered with; None where it did not answer."""
    status: int | None = getattr(error, "status_code", None)
    return status


def _read_key(server: Server) -> str:
    if not server.key_env:
        return ""
    key = os.environ.get(server.key_env)
    if not key:
        raise RetrievalError(
            f"retrieval.key_env names the environment variable {server.key_env}, "
            "which is not set; export the key of the Qdrant server in it"
        )
    return key


def _connect(server: Server | None, key: str, place: Place) -> QdrantClient:
    from qdrant_client import QdrantClient

    if server is None:
        return QdrantClient(":memory:")
    try:
        return QdrantClient(
            url=server.url, api_key=key or None, timeout=TIMEOUT_S, check_compatibility=False
        )
    except (ValueError, TypeError, OSError) as error:
        raise RetrievalError(
            f"retrieval.url = {place.shown!r} is no address ({place.clean(str(error))}); "
            "give one such as http://127.0.0.1:6333"
        ) from error


def _passing(error: Exception) -> bool:
    status = _status(error)
    return status is None or status in (408, 429) or status >= 500


def _explained(place: Place, error: Exception) -> str:
    status = _status(error)
    if status in (401, 403):
        return (
            f"the Qdrant server at {place} refuses the key ({status}); name the environment "
            "variable that holds it in retrieval.key_env"
        )
    if status is not None:
        content = place.clean(bytes(getattr(error, "content", b"")).decode(errors="replace"))[:200]
        return f"the Qdrant server at {place} answers {status}: {content}; see the server's log"
    reason = place.clean(str(getattr(error, "source", error)))
    return (
        f"the Qdrant server at {place} does not answer ({reason}); start it, correct "
        "retrieval.url, or leave the url out to keep the documents in memory"
    )
