"""A search and its answer, as conversations see them."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from actors.retrieval import planting
from actors.tools import ToolError
from specs.scene import Calling, CallResult

if TYPE_CHECKING:
    from actors.retrieval.embedding import Vectors

T = TypeVar("T")

LIMIT = 3
"""Documents a page, where the call does not say."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One page of one search.

    Attributes:
        query: None (or blank) asks for suggestions: documents drawn, not found.
        page: from 0.
        min_score: the least cosine of a document found; the planted one stands regardless, and
            suggestions have none.
        planted: the wanted document, which stands on `plant_page` and on no other.
        hidden: a document that stands on no page.
        draws: what the draws derive from, the same for all searches of a dialogue.
        among: the documents that are looked through; None for all. The planted one stands
            regardless.
    """

    query: str | None
    page: int = 0
    limit: int = LIMIT
    min_score: float | None = None
    planted: str | None = None
    plant_page: int = 0
    hidden: str | None = None
    draws: str = ""
    among: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.query is not None and not self.query.strip():
            object.__setattr__(self, "query", None)
        if self.page < 0 or self.plant_page < 0:
            raise ToolError(
                f"search: pages count from 0, and {min(self.page, self.plant_page)} is none"
            )
        if self.limit < 1:
            raise ToolError(
                f"search: a page of {self.limit} documents holds none; `limit` is 1 or more"
            )

    @property
    def apart(self) -> frozenset[str]:
        """The documents that the ranking of the others leaves out."""
        return frozenset(filter(None, (self.planted, self.hidden)))

    def require_known(self, ids: Container[str]) -> None:
        """Raise ToolError where it names a document that is not among these ids."""
        if self.planted is not None and self.planted not in ids:
            raise ToolError(f"search: the planted document {self.planted!r} is not in the corpus")
        for id_ in sorted(self.among or ()):
            if id_ not in ids:
                raise ToolError(f"search: `among` names {id_!r}, which is not in the corpus")

    def among_of(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the ids that are looked through, in their order."""
        return ids if self.among is None else tuple(id_ for id_ in ids if id_ in self.among)

    def page_of(self, others: planting.Fetch[T], planted: Callable[[str], T]) -> list[T]:
        """Return this page of a ranking.

        Args:
            others: the ranking without the documents that stand `apart`.
            planted: what stands in the ranking for the planted document, by its id.
        """
        return planting.page_of(
            others,
            planted(self.planted) if self.planted is not None else None,
            self.plant_page,
            planting.position(self.draws, self.query, self.limit),
            self.page,
            self.limit,
        )


@dataclass(frozen=True, slots=True)
class SearchPage:
    """The documents of one page, best first but for the planted one, and their scores."""

    ids: tuple[str, ...]
    scores: tuple[float, ...]


class Retriever(Protocol):
    """What conversations search with."""

    async def search(self, request: SearchRequest) -> SearchPage:
        """Return one page.

        Raises:
            ToolError: when the request makes no sense (the domain's doing).
            RetrievalError: when the store does not answer (the infrastructure's doing).
        """

    async def embed(self, texts: tuple[str, ...]) -> Vectors:
        """Return one normalized row a text."""

    async def similarity(self, one: tuple[str, ...], other: tuple[str, ...]) -> Vectors:
        """Return the cosines, one row for each of `one`, one column for each of `other`."""


def search_request(calling: Calling) -> SearchRequest:
    """Return the search that a scene's call asks for; raises ToolError for arguments of no use."""
    given = dict(calling.arguments)
    query = given.pop("query", None)
    page = _number(given.pop("page", 0), "page", whole=True)
    limit = _number(given.pop("limit", LIMIT), "limit", whole=True)
    min_score = given.pop("min_score", None)
    among = given.pop("among", None)
    if given:
        raise ToolError(f"search has no input {sorted(given)[0]!r}; it has {_INPUTS}")
    planting = calling.planting
    shown = planting is not None and not planting.hidden
    return SearchRequest(
        query=None if query is None else str(query),
        page=page,
        limit=limit,
        min_score=None if min_score is None else _number(min_score, "min_score", whole=False),
        planted=planting.id if planting is not None and shown else None,
        plant_page=planting.page if planting is not None else 0,
        hidden=planting.id if planting is not None and not shown else None,
        draws=calling.draws,
        among=None if among is None else _ids(among),
    )


def call_result(page: SearchPage) -> CallResult:
    """Return a page as a scene takes it."""
    return CallResult(ids=page.ids, scores=page.scores)


_INPUTS = "query, page, limit, min_score, among"


def _ids(value: Any) -> frozenset[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise ToolError(f"search: `among` is {repr(value)[:80]}, and must be a list of ids")
    return frozenset(value)


def _number(value: Any, name: str, whole: bool) -> Any:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (whole and value != int(value))
    ):
        raise ToolError(f"search: `{name}` is {value!r}, and must be a {'whole ' * whole}number")
    return int(value) if whole else float(value)
