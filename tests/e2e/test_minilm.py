"""Retrieval with the real embedding model and the recipes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

import specs
from actors.retrieval.request import SearchRequest
from actors.retrieval.retriever import LocalRetriever
from actors.retrieval.store import Corpus
from specs.run_file import RetrievalSection

FOLDER = Path(specs.__file__).parent / "domains" / "recipe"
RECIPES = [json.loads(line) for line in (FOLDER / "corpus.jsonl").read_text("utf-8").splitlines()]
CORPUS = Corpus(
    tuple(recipe["id"] for recipe in RECIPES),
    tuple(f"{recipe['title']}. {recipe['description']}" for recipe in RECIPES),
)
TITLES = {recipe["id"]: recipe["title"] for recipe in RECIPES}


@pytest.fixture(scope="module")
def vectors_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
async def retriever(
    vectors_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LocalRetriever]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(vectors_folder))
    local = LocalRetriever(CORPUS, RetrievalSection(embedding="minilm"))
    await local.start()
    yield local
    await local.stop()


async def test_it_finds_what_is_meant(retriever: LocalRetriever) -> None:
    soups, cheap = await asyncio.gather(
        retriever.search(SearchRequest("tomato soup")),
        retriever.search(SearchRequest("something sweet for dessert")),
    )
    assert "Tomato" in TITLES[soups.ids[0]]
    assert "Soup" in TITLES[soups.ids[0]]
    assert list(soups.scores) == sorted(soups.scores, reverse=True)
    assert not set(soups.ids) & set(cheap.ids)


async def test_pages_share_nothing_and_hold_everything_once(retriever: LocalRetriever) -> None:
    for query in ("tomato soup", None):
        pages = await asyncio.gather(
            *(
                retriever.search(
                    SearchRequest(query, page=page, planted="r002", plant_page=1, draws="a")
                )
                for page in range(25)
            )
        )
        ids = [id_ for page in pages for id_ in page.ids]
        assert sorted(ids) == sorted(CORPUS.ids)
        assert "r002" in pages[1].ids
        again = await retriever.search(SearchRequest(query, 1, 3, None, "r002", 1, None, "a"))
        assert again == pages[1]


async def test_the_planted_document_stands_whatever_its_score(retriever: LocalRetriever) -> None:
    strict = SearchRequest("tomato soup", min_score=0.99, planted="r002", plant_page=2)
    page = await retriever.search(strict)
    assert page.ids == ("r002",)
    assert -1 <= page.scores[0] < 0.5
    hidden = SearchRequest("tomato soup", limit=72, hidden="r004")
    assert set((await retriever.search(hidden)).ids) == set(CORPUS.ids) - {"r004"}


async def test_similar_utterances_are_nearer(retriever: LocalRetriever) -> None:
    cosines = await retriever.similarity(
        ("Could you find me a tomato soup?",),
        ("I am looking for a soup with tomatoes.", "My bicycle has a flat tyre.", "\ud800"),
    )
    assert cosines.shape == (1, 3)
    assert cosines[0, 0] > 0.6 > 0.3 > cosines[0, 1]
    assert np.allclose(np.linalg.norm(await retriever.embed(("soup", "tea")), axis=1), 1, atol=1e-4)
