from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.retrieval import retriever as retriever_module
from actors.retrieval.embedding import LexicalEmbedder, Vectors
from actors.retrieval.remote import RetrieverClient
from actors.retrieval.request import SearchPage, SearchRequest, call_result, search_request
from actors.retrieval.retriever import LocalRetriever
from actors.retrieval.sampled import SampledSearch, SampledTools
from actors.retrieval.store import Corpus, DocumentStore, UnreachableError
from actors.tools import ToolError
from specs.domain import Document, Domain, Json, Outcome, RoleCard, Tool
from specs.errors import RetrievalError, Where
from specs.expressions import Template
from specs.run_file import RetrievalSection
from specs.scene import Calling, Planting

WHERE = Where("domain.yaml")
DISHES = ("tomato soup", "tomato salad", "lemon cake", "onion soup", "plum cake", "rice bowl")
DOCUMENTS = tuple(Document(f"r{i}", {}, dish, i + 1) for i, dish in enumerate(DISHES))
ASK = Tool("ask", "", {"n": "integer"}, (Outcome(1, "{{ input.n }} {{ memory.x }}"),), None, WHERE)
CARD = RoleCard("x", Template("x", WHERE))
DOMAIN = Domain(
    "d", "", Path(), "0", "user", DOCUMENTS, (), {}, (), CARD, CARD, {"ask": ASK}, {}, {}, (),
    "start", frozenset(), (), 10,
)  # fmt: skip


class Counting(LexicalEmbedder):
    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        if "break" in texts:
            raise RuntimeError("out of memory")
        self.batches.append(list(texts))
        return super().encode(texts)


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Counting:
    counting = Counting()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(retriever_module, "load_embedder", lambda name: counting)
    return counting


@pytest.fixture
async def retriever(embedder: Counting) -> AsyncIterator[LocalRetriever]:
    local = LocalRetriever(Corpus.of(DOCUMENTS), RetrievalSection(embedding="lexical"))
    yield local
    await local.stop()


async def test_concurrent_queries_are_embedded_together_and_once(
    retriever: LocalRetriever, embedder: Counting
) -> None:
    queries = [f"{dish} please" for dish in DISHES]
    pages = await asyncio.gather(*(retriever.search(SearchRequest(q)) for q in queries * 3))
    assert [page.ids[0] for page in pages] == [document.id for document in DOCUMENTS] * 3
    corpus, *batches = embedder.batches
    assert corpus == list(DISHES)
    assert sorted(text for batch in batches for text in batch) == sorted(queries)
    assert len(batches) <= 3


async def test_an_error_is_its_own_requests(retriever: LocalRetriever) -> None:
    good, bad = await asyncio.gather(
        retriever.search(SearchRequest("soup")),
        retriever.search(SearchRequest("soup", planted="r99")),
        return_exceptions=True,
    )
    assert not isinstance(good, BaseException)
    assert isinstance(bad, ToolError)
    with pytest.raises(RetrievalError, match="out of memory"):
        await retriever.embed(("break",))
    assert (await retriever.search(SearchRequest("lemon cake"))).ids[0] == "r2"


@pytest.fixture
def out_of_reach(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let no server answer a search; return what was asked of it."""
    asked: list[str] = []

    def search(*_: object) -> None:
        asked.append("search")
        raise UnreachableError("does not answer")

    monkeypatch.setattr(DocumentStore, "search", search)
    return asked


async def test_what_waits_for_a_server_out_of_reach_fails_with_it(
    retriever: LocalRetriever, out_of_reach: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await retriever.start()
    monkeypatch.setattr(retriever_module, "BATCH", 4)  # some wait in the batch, some in the queue
    free = threading.Event()
    retriever._thread.submit(free.wait)
    asked = [asyncio.ensure_future(retriever.search(SearchRequest(dish))) for dish in DISHES]
    drawn = asyncio.ensure_future(retriever.search(SearchRequest(None, limit=2)))
    vectors = asyncio.ensure_future(retriever.embed(("soup",)))
    await asyncio.sleep(0)  # all are in the queue
    free.set()
    for one in asked:
        with pytest.raises(RetrievalError, match="does not answer"):
            await one
    assert len((await drawn).ids) == 2
    assert len(await vectors) == 1
    assert len(out_of_reach) == 1
    with pytest.raises(RetrievalError):  # who asks later finds out anew: it may be back
        await retriever.search(SearchRequest("soup"))
    assert len(out_of_reach) == 2


async def test_a_store_out_of_reach_is_opened_once_for_all_that_wait(
    retriever: LocalRetriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []

    def load(*given: object) -> None:
        opened.append(given)
        raise UnreachableError("does not answer")

    monkeypatch.setattr(retriever_module.SearchCore, "load", load)
    monkeypatch.setattr(retriever_module, "BATCH", 1)
    free = threading.Event()
    retriever._thread.submit(free.wait)
    asked = [asyncio.ensure_future(retriever.search(SearchRequest(dish))) for dish in DISHES]
    await asyncio.sleep(0)
    free.set()
    for one in asked:
        with pytest.raises(RetrievalError, match="does not answer"):
            await one
    assert len(opened) == 1


async def test_one_that_is_late_names_what_can_be_done() -> None:
    late = SimpleNamespace(answer=SimpleNamespace(remote=lambda _: asyncio.Event().wait()))
    client = RetrieverClient(late, Corpus.of(DOCUMENTS), deadline_s=0.01)
    with pytest.raises(RetrievalError, match=r"'search' for 0\.01 s: .*walkers\.retrievers"):
        await client.search(SearchRequest("soup"))


async def test_a_cancelled_search_disturbs_no_other(retriever: LocalRetriever) -> None:
    cancelled = asyncio.ensure_future(retriever.search(SearchRequest("rice")))
    other = asyncio.ensure_future(retriever.search(SearchRequest("plum")))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert (await other).ids[0] == "r4"
    assert cancelled.cancelled()


async def test_a_stopped_retriever_says_so(retriever: LocalRetriever) -> None:
    await retriever.stop()
    with pytest.raises(RetrievalError, match="stopped"):
        await retriever.search(SearchRequest("soup"))


async def test_sampled_suggestions_are_the_retrievers(retriever: LocalRetriever) -> None:
    sampled = SampledSearch(DOMAIN)
    for page in range(4):
        request = SearchRequest(None, page, 2, planted="r3", plant_page=1, draws="x")
        assert await retriever.search(request) == sampled.search(request)


def test_a_sampled_query_is_found_when_it_shares_a_content_word() -> None:
    search = SampledSearch(DOMAIN)
    found = [search.search(SearchRequest("a soup", k, 2, min_score=0.3)).ids for k in range(4)]
    assert sorted(id_ for page in found for id_ in page) == [d.id for d in DOCUMENTS]
    for query in ("a bicycle", "what can you do for me"):
        assert search.search(SearchRequest(query, min_score=0.3)).ids == ()
        planted = search.search(SearchRequest(query, min_score=0.3, planted="r1"))
        assert planted.ids == ("r1",)
    assert len(search.search(SearchRequest("a bicycle", limit=4)).ids) == 4


def call(planting: Planting | None = None, tool: str = "search", **arguments: Json) -> Calling:
    return Calling("look_up", tool, arguments, planting, "dialogue:search")


def test_a_scenes_call_becomes_a_request() -> None:
    shown = search_request(call(Planting("r1", 2, hidden=False), query=" ", page=1.0))
    assert (shown.query, shown.page, shown.planted, shown.plant_page) == (None, 1, "r1", 2)
    assert shown.hidden is None
    hidden = search_request(call(Planting("r1", 2, hidden=True), query="soup", min_score=0.2))
    assert (hidden.planted, hidden.hidden, hidden.min_score) == (None, "r1", 0.2)
    assert shown.among is None
    assert search_request(call(query="soup", among=["r1", "r2", "r1"])).among == frozenset(
        {"r1", "r2"}
    )
    assert search_request(call(among=[])).among == frozenset()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"page": -1}, "-1 is none"),
        ({"page": "two"}, "whole number"),
        ({"limit": 0}, "holds none"),
        ({"limit": 2.5}, "whole number"),
        ({"min_score": "high"}, "must be a number"),
        ({"among": "r1"}, "must be a list of ids"),
        ({"among": [1]}, "must be a list of ids"),
        ({"pages": 1}, "no input 'pages'"),
    ],
)
def test_arguments_of_no_use_are_named(arguments: dict[str, Json], words: str) -> None:
    with pytest.raises(ToolError, match=words):
        search_request(call(**arguments))


@pytest.mark.parametrize("query", ["soup", None])
async def test_only_what_it_is_looked_for_among_is_found(
    retriever: LocalRetriever, query: str | None
) -> None:
    few = frozenset({"r1", "r3", "r5"})
    for search in (retriever.search, _sampled):
        pages = [
            await search(SearchRequest(query, page, 2, planted="r0", draws="x", among=few))
            for page in range(3)
        ]
        found = [id_ for page in pages for id_ in page.ids]
        assert sorted(found) == ["r0", *sorted(few)]  # the planted one stands regardless
        with pytest.raises(ToolError, match="`among` names 'r9'"):
            await search(SearchRequest(query, among=few | {"r9"}))


async def _sampled(request: SearchRequest) -> SearchPage:
    return SampledSearch(DOMAIN).search(request)


def test_sampled_walks_call_the_domains_tools() -> None:
    tools = SampledTools(DOMAIN)
    assert tools(call(tool="ask", n=3), {"memory": {"x": "y"}}).value == "3 y"
    assert tools(call(query="soup")) == call_result(
        SampledSearch(DOMAIN).search(SearchRequest("soup", draws="dialogue:search"))
    )
