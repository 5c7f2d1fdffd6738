from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from actors.retrieval import store as store_module
from actors.retrieval.embedding import LexicalEmbedder, Vectors, vectors_digest
from actors.retrieval.store import Corpus, DocumentStore, Server
from specs.errors import RetrievalError
from tests.unit.qdrant_server import FakeQdrant, served

DISHES = ("tomato soup", "tomato salad", "lemon cake", "onion soup", "plum cake", "rice")
CORPUS = Corpus(tuple(f"r{i}" for i in range(len(DISHES))), DISHES)
EMBEDDER = LexicalEmbedder()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BACKOFF_S", 0.0)


@pytest.fixture
def server() -> Iterator[tuple[FakeQdrant, Server]]:
    qdrant = FakeQdrant()
    with served(qdrant) as url:
        yield qdrant, Server(url)


def open_store(where: Server | None = None, corpus: Corpus = CORPUS) -> DocumentStore:
    digest = vectors_digest(EMBEDDER, corpus.texts)
    return DocumentStore.open(corpus, digest, lambda: EMBEDDER.encode(corpus.texts), where)


def vector(query: str) -> Vectors:
    row: Vectors = EMBEDDER.encode([query])[0]
    return row


def check_search(store: DocumentStore) -> None:
    soup = vector("tomato soup")
    everything = store.search(soup, 0, 10)
    assert everything[0].id == "r0"
    assert everything[0].score == pytest.approx(1, abs=1e-5)
    assert sorted(hit.id for hit in everything) == sorted(CORPUS.ids)
    paged = [hit for page in range(4) for hit in store.search(soup, 2 * page, 2)]
    assert [hit.id for hit in paged] == [hit.id for hit in everything]
    without = store.search(soup, 0, 10, exclude={"r0", "r3"})
    assert [h.id for h in without] == [h.id for h in everything if h.id not in ("r0", "r3")]
    assert {hit.id for hit in store.search(soup, 0, 10, min_score=0.2)} == {"r0", "r1", "r3"}
    few = {"r1", "r3", "r4"}
    ranked = [hit.id for hit in everything if hit.id in few]
    paged = [hit for page in range(3) for hit in store.search(soup, 2 * page, 2, among=few)]
    assert [hit.id for hit in paged] == ranked
    assert [hit.id for hit in store.search(soup, 0, 9, {ranked[0]}, among=few)] == ranked[1:]
    assert store.search(soup, 0, 3, among=()) == []
    for hit in everything:
        assert store.similarity(soup, hit.id) == pytest.approx(hit.score, abs=1e-4)


def test_search_in_memory() -> None:
    check_search(open_store())


def test_search_on_a_server(server: tuple[FakeQdrant, Server]) -> None:
    check_search(open_store(server[1]))


def test_an_empty_corpus_finds_nothing() -> None:
    assert open_store(corpus=Corpus((), ())).search(vector("soup"), 0, 3) == []


def test_a_collection_is_filled_once_and_completed_when_it_is_not(
    server: tuple[FakeQdrant, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    qdrant, where = server
    monkeypatch.setattr(store_module, "FILL_ROWS", 4)
    open_store(where)
    open_store(where)
    assert qdrant.upserts == 2
    (collection,) = qdrant.client.get_collections().collections
    qdrant.client.delete(collection.name, [1, 5])
    check_search(open_store(where))
    assert qdrant.client.count(collection.name).count == len(DISHES)
    open_store(where, Corpus(("x",), ("another corpus",)))
    assert len(qdrant.client.get_collections().collections) == 2


def test_two_that_fill_at_once_leave_one_collection(server: tuple[FakeQdrant, Server]) -> None:
    qdrant, where = server
    with ThreadPoolExecutor(4) as threads:
        for store in threads.map(lambda _: open_store(where), range(4)):
            check_search(store)
    assert len(qdrant.client.get_collections().collections) == 1


def test_a_passing_failure_is_tried_again_and_a_refusal_is_not(
    server: tuple[FakeQdrant, Server],
) -> None:
    qdrant, where = server
    store = open_store(where)
    qdrant.refusals = [503, 429]
    check_search(store)
    qdrant.refusals = [401, 500, 500]
    with pytest.raises(RetrievalError, match="refuses the key"):
        store.search(vector("soup"), 0, 3)
    assert qdrant.refusals == [500, 500]


def test_a_lost_collection_is_said(server: tuple[FakeQdrant, Server]) -> None:
    qdrant, where = server
    store = open_store(where)
    soup = vector("soup")
    for ask in (lambda: store.search(soup, 0, 3), lambda: store.similarity(soup, "r1")):
        qdrant.refusals = [404]
        with pytest.raises(RetrievalError, match=r"has lost the collection duologue-.*start again"):
            ask()
    qdrant.refusals = [404]
    with pytest.raises(RetrievalError, match="answers 404"):  # what is no Qdrant has lost nothing
        open_store(where)


def test_a_url_out_of_reach_is_one_clear_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(RetrievalError) as raised:
            open_store(Server(url))
    message = str(raised.value)
    assert url in message
    assert "does not answer" in message
    assert "retrieval.url" in message
    assert "\n" not in message


def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QDRANT_KEY", raising=False)
    with pytest.raises(RetrievalError, match="QDRANT_KEY"):
        open_store(Server("http://127.0.0.1:6333", "QDRANT_KEY"))


def test_no_secret_of_the_url_is_said() -> None:
    with pytest.raises(RetrievalError) as caught:
        open_store(Server("http://me:hunter2@127.0.0.1:9/x?api_key=QUERY-KEY"))
    assert "127.0.0.1:9" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "QUERY-KEY" not in str(caught.value)
