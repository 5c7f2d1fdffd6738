"""Search without a model, for sampled walks (`domain show`, `plan`): hits drawn, planted alike."""

from __future__ import annotations

from collections.abc import Mapping

from actors.retrieval import planting
from actors.retrieval.request import SearchPage, SearchRequest, call_result, search_request
from actors.tools import run_tool
from specs.domain import Domain, Json
from specs.scene import Calling, CallResult
from specs.seeds import generator
from specs.words import Vocabulary, content_words


class SampledSearch:
    """Documents drawn in place of found ones.

    A query that shares a content word with any document is taken as found: every document has
    score 1. Any other query finds documents of score 0, so with a `min_score` it finds nothing but
    the planted one.
    """

    def __init__(self, domain: Domain) -> None:
        self._ids = tuple(document.id for document in domain.documents)
        self._known = frozenset(self._ids)
        self._words = Vocabulary(document.embed for document in domain.documents)

    def search(self, request: SearchRequest) -> SearchPage:
        """Return one page; raises ToolError where it names a document that does not exist."""
        request.require_known(self._known)
        found = request.query is None or self._found(request.query)
        score = 1.0 if found else 0.0
        passes = request.query is None or request.min_score is None or score >= request.min_score
        ids = request.among_of(self._ids) if passes else ()
        if request.query is None:
            others = planting.suggestions(ids, request.apart, request.draws)
        else:
            others = planting.shuffled(ids, request.apart, request.draws, "found", request.query)
        page = request.page_of(others, str)
        return SearchPage(tuple(page), (score,) * len(page))

    def _found(self, query: str) -> bool:
        return any(word in self._words for word in content_words(query))


class SampledTools:
    """Answers the calls of a sampled walk (`specs.scene.sample_walk`)."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._search = SampledSearch(domain)

    def __call__(self, calling: Calling, scope: Mapping[str, Json] | None = None) -> CallResult:
        """Return what a call brings.

        Args:
            scope: what the templates of a tool's result see; without it, its input alone.

        Raises:
            ToolError: when the call makes no sense.
        """
        if calling.tool == "search":
            return call_result(self._search.search(search_request(calling)))
        tool = self._domain.tools[calling.tool]
        return CallResult(
            value=run_tool(tool, calling.arguments, scope or {}, generator(calling.draws))
        )
