"""A search meets whatever may befall the retriever's actor, and ends by its deadline alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray import exceptions

from actors.retrieval import remote
from actors.retrieval.remote import NotLoadedError, RetrieverClient
from actors.retrieval.request import SearchPage, SearchRequest
from actors.retrieval.store import Corpus, UnreachableError
from actors.tools import ToolError
from specs.errors import RetrievalError

CORPUS = Corpus(("a",), ("soup",))
SOUP = SearchRequest("soup")
PAGE = SearchPage(("a",), (1.0,))


ray_raises: Any = exceptions  # which has no types


def raised(cause: Exception) -> Exception:
    """Return what Ray makes of an exception in an actor."""
    made: Exception = ray_raises.RayTaskError("search", "a traceback", cause)
    return made


def scripted(outcomes: Iterator[SearchPage | Exception], starts: list[Any]) -> Any:
    """Return a handle whose searches have these outcomes, and which notes its starts."""

    async def search(_: SearchRequest) -> SearchPage:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def start(corpus: Corpus) -> None:
        starts.append(corpus)
        await asyncio.sleep(0)

    return SimpleNamespace(
        search=SimpleNamespace(remote=search), start=SimpleNamespace(remote=start)
    )


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(remote, "LONGEST_PAUSE_S", 0.0)


@pytest.mark.parametrize(
    "passes",
    [
        lambda: ray_raises.RayActorError(),
        lambda: ray_raises.ActorUnavailableError("no answer", None),
        lambda: ray_raises.ObjectLostError("0" * 56, None, ""),
        lambda: ray_raises.RaySystemError("its node has died"),
        lambda: raised(UnreachableError("the server does not answer")),
        lambda: raised(NotLoadedError("new")),
    ],
)
async def test_what_may_pass_is_waited_for_however_often_it_comes(
    passes: Callable[[], Exception],
) -> None:
    outcomes: list[SearchPage | Exception] = [*(passes() for _ in range(30)), PAGE]
    client = RetrieverClient(scripted(iter(outcomes), []), CORPUS)
    assert await client.search(SOUP) == PAGE


async def test_what_cannot_pass_is_told_at_once() -> None:
    outcomes = iter([raised(ToolError("no such document")), raised(ValueError("x"))])
    client = RetrieverClient(scripted(outcomes, []), CORPUS)
    with pytest.raises(ToolError, match="no such document"):
        await client.search(SOUP)
    with pytest.raises(RetrievalError, match="failed in 'search': x"):
        await client.search(SOUP)


async def test_the_deadline_ends_it_with_the_reason() -> None:
    def always() -> Iterator[Exception]:
        while True:
            yield raised(UnreachableError("http://q:6333 does not answer"))

    client = RetrieverClient(scripted(always(), []), CORPUS, deadline_s=0.05)
    with pytest.raises(RetrievalError, match="http://q:6333 does not answer"):
        await client.search(SOUP)


async def test_the_corpus_is_sent_once_for_all_searches_that_met_a_restart() -> None:
    starts: list[Any] = []
    outcomes: list[SearchPage | Exception] = [raised(NotLoadedError("new")) for _ in range(20)]
    client = RetrieverClient(scripted(iter(outcomes + [PAGE] * 20), starts), CORPUS)
    pages = await asyncio.gather(*(client.search(SOUP) for _ in range(20)))
    assert pages == [PAGE] * 20
    assert starts == [CORPUS]
