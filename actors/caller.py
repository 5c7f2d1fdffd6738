"""What answers a scene's calls: the search through a retriever, the domain's own tools here."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from actors.laps import TOOLS, spent
from actors.retrieval.request import Retriever, call_result, search_request
from actors.tools import call_tool
from specs.domain import Domain
from specs.errors import RetrievalError, Unavailable
from specs.scene import Calling, CallResult, Scene
from specs.seeds import generator


class ToolCaller:
    """Implements `actors.conversation.Caller` over a retriever."""

    def __init__(self, domain: Domain, retriever: Retriever) -> None:
        self._domain = domain
        self._retriever = retriever

    async def call(self, calling: Calling, scene: Scene) -> CallResult:
        """Return what the call brings.

        Raises:
            ToolError: when the call makes no sense (the domain's doing).
            Unavailable: when the store does not answer.
        """
        if calling.tool == "search":
            try:
                return call_result(await self._retriever.search(search_request(calling)))
            except RetrievalError as error:
                raise Unavailable(str(error)) from error
        tool = self._domain.tools[calling.tool]
        draws = generator(calling.draws)
        began = perf_counter()
        value = await call_tool(tool, calling.arguments, scene.scope(), draws)
        spent(TOOLS, began)
        return CallResult(value=value)

    async def similarity(self, text: str, references: Sequence[str]) -> float:
        """Return the cosine of a text with the nearest reference; 0 where there are none."""
        if not references:
            return 0.0
        try:
            cosines = await self._retriever.similarity((text,), tuple(references))
        except RetrievalError as error:
            raise Unavailable(str(error)) from error
        return float(cosines.max())
