"""A search meets whatever may befall the retriever's actor, and ends by its deadline alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
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
    """Return a handle whose calls have these outcomes, and which notes its starts."""

    async def answer(calls: Sequence[Any]) -> list[SearchPage | Exception]:
        found = [next(outcomes) for _ in calls]
        for outcome in found:
            if isinstance(outcome, ray_raises.RayError):  # of the actor, and so of all
                raise outcome
        return found

    async def start(corpus: Corpus) -> None:
        starts.append(corpus)
        await asyncio.sleep(0)

    return SimpleNamespace(
        answer=SimpleNamespace(remote=answer), start=SimpleNamespace(remote=start)
    )


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(remote, "LONGEST_PAUSE_S", 0.0)
    monkeypatch.setattr(remote, "GATHER_S", 0.0)


@pytest.mark.parametrize(
    "passes",
    [
        lambda: ray_raises.RayActorError(),
        lambda: ray_raises.ActorUnavailableError("no answer", None),
        lambda: ray_raises.ObjectLostError("0" * 56, None, ""),
        lambda: ray_raises.RaySystemError("its node has died"),
        lambda: UnreachableError("the server does not answer"),
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
    outcomes = iter([ToolError("no such document"), ValueError("x"), raised(ValueError("y"))])
    client = RetrieverClient(scripted(outcomes, []), CORPUS)
    with pytest.raises(ToolError, match="no such document"):
        await client.search(SOUP)
    with pytest.raises(RetrievalError, match="failed in 'search': x"):
        await client.search(SOUP)
    with pytest.raises(RetrievalError, match="failed in 'answer': y"):
        await client.search(SOUP)


async def test_calls_that_are_made_together_go_together_and_fail_one_by_one() -> None:
    sizes: list[int] = []

    async def answer(calls: Sequence[Any]) -> list[Any]:
        sizes.append(len(calls))
        return [ToolError(a[0].query) if a[0].query == "x" else PAGE for _, a in calls]

    client = RetrieverClient(SimpleNamespace(answer=SimpleNamespace(remote=answer)), CORPUS)
    asked = [client.search(SearchRequest(query)) for query in ("a", "x", "b")]
    one, wrong, other = await asyncio.gather(*asked, return_exceptions=True)
    assert (one, other) == (PAGE, PAGE)
    assert isinstance(wrong, ToolError)
    assert sizes == [3]
    assert await client.search(SOUP) == PAGE
    assert sizes == [3, 1]


async def test_the_deadline_ends_it_with_the_reason() -> None:
    def always() -> Iterator[Exception]:
        while True:
            yield UnreachableError("http://q:6333 does not answer")

    client = RetrieverClient(scripted(always(), []), CORPUS, deadline_s=0.05)
    with pytest.raises(RetrievalError, match="http://q:6333 does not answer"):
        await client.search(SOUP)


async def test_the_corpus_is_sent_once_for_all_searches_that_met_a_restart() -> None:
    starts: list[Any] = []
    outcomes: list[SearchPage | Exception] = [raised(NotLoadedError("new")) for _ in range(20)]
    handle = scripted(iter(outcomes + [PAGE] * 20), starts)
    loaded = asyncio.Event()

    async def start(corpus: Corpus) -> None:
        starts.append(corpus)
        await loaded.wait()

    handle.start.remote = start
    client = RetrieverClient(handle, CORPUS)
    searches = []
    for _ in range(20):  # each finds it new by itself
        searches.append(asyncio.ensure_future(client.search(SOUP)))
        await asyncio.sleep(0.001)
    loaded.set()
    assert await asyncio.gather(*searches) == [PAGE] * 20
    assert starts == [CORPUS]
