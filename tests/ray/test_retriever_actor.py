from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest
import ray

from actors.retrieval.remote import RetrieverClient, start_actor
from actors.retrieval.request import SearchRequest
from actors.retrieval.store import Corpus
from actors.tools import ToolError
from specs.errors import RetrievalError
from specs.run_file import RetrievalSection

CORPUS = Corpus(("r0", "r1", "r2"), ("tomato soup", "lemon cake", "onion soup"))
LEXICAL = RetrievalSection(embedding="lexical")
SOUP = SearchRequest("tomato soup", limit=2)


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    cache = str(tmp_path_factory.mktemp("cache"))
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 1024 * 1024,
        runtime_env={"env_vars": {"XDG_CACHE_HOME": cache}},
    )
    yield
    ray.shutdown()


async def test_a_killed_retriever_comes_back_and_answers_the_same() -> None:
    handle = start_actor(LEXICAL)
    client = RetrieverClient(handle, CORPUS)
    await client.start()
    before = await client.search(SOUP)
    assert before.ids[0] == "r0"
    searches = [asyncio.ensure_future(client.search(SOUP)) for _ in range(20)]
    ray.kill(handle, no_restart=False)
    assert await asyncio.gather(*searches) == [before] * 20
    assert await client.search(SOUP) == before
    assert (await client.similarity(("soup",), ("soup", "cake"))).shape == (1, 2)


async def test_a_large_corpus_survives_restarts() -> None:
    # Arguments of more than 100 kB go through Ray's object store, which forgets a constructor's.
    ids = tuple(f"d{n}" for n in range(2000))
    corpus = Corpus(ids, tuple(f"dish number {n} {'and salt ' * 20}" for n in range(2000)))
    handle = start_actor(LEXICAL)
    client = RetrieverClient(handle, corpus)
    wanted = SearchRequest("dish number 77", limit=1, planted="d77")
    before = await client.search(wanted)
    for _ in range(3):
        ray.kill(handle, no_restart=False)
        gc.collect()
        assert await client.search(wanted) == before


async def test_one_that_does_not_come_back_is_an_error() -> None:
    handle = start_actor(LEXICAL)
    client = RetrieverClient(handle, CORPUS, deadline_s=2)
    await client.start()
    ray.kill(handle)
    with pytest.raises(RetrievalError, match="does not come back"):
        await client.search(SOUP)


async def test_errors_arrive_as_they_were_raised() -> None:
    client = RetrieverClient(start_actor(LEXICAL), CORPUS)
    with pytest.raises(ToolError, match="'r9' is not in the corpus") as refused:
        await client.search(SearchRequest("soup", planted="r9"))
    assert "Traceback" not in str(refused.value)
    unreachable = RetrievalSection(embedding="lexical", url="http://127.0.0.1:9")
    with pytest.raises(RetrievalError, match=r"127\.0\.0\.1:9 does not answer"):
        await RetrieverClient(start_actor(unreachable), CORPUS).start()
