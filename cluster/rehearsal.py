"""Dialogues of a domain in this process, without Ray and without a model.

The same `Conversation`s as in a run, spoken by the reference engine: what a domain's author sees
here is what the graph, the tools and the references make of it.
"""

from __future__ import annotations

import asyncio

from actors.caller import ToolCaller
from actors.cast import Cast
from actors.engines.client import EngineClient
from actors.engines.reference import ReferenceBackend
from actors.engines.replica import ReplicaCore
from actors.manager import make_manager
from actors.policies import CONVERSATIONS
from actors.retrieval.retriever import LocalRetriever
from actors.retrieval.store import Corpus
from actors.seat import Seat
from specs.domain import Domain
from specs.engine_section import EngineSection, Profile
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue
from specs.run_file import MANAGED, PolicySection, RetrievalSection
from specs.traits import Shares

ALIVE = 64
"""Dialogues played at once."""

RUN = "rehearsal"


def rehearse(
    domain: Domain,
    dialogues: int,
    first: int,
    seed: int,
    policy: PolicySection | None = None,
    traits: Shares = (),
) -> list[Dialogue]:
    """Return the dialogues of the indices from `first` on, in their order.

    Args:
        policy: how they are steered; walks where None. No model manages here.
        traits: the shares of users who have them.

    The same domain, seed and index give the same dialogue, whatever is played beside it.

    Raises:
        DuologueError: when the documents cannot be searched.
    """
    policy = policy or PolicySection()
    source = PlanSource(seed, policy.kind, traits=traits)
    return asyncio.run(_rehearse(domain, source, range(first, first + dialogues), policy))


async def _rehearse(
    domain: Domain, source: PlanSource, indices: range, policy: PolicySection
) -> list[Dialogue]:
    replica = ReplicaCore(ReferenceBackend(EngineSection(kind="reference"), RUN), RUN)
    client = EngineClient({RUN: replica}, RUN)
    retriever = LocalRetriever(Corpus.of(domain.documents), RetrievalSection(embedding="lexical"))
    free = asyncio.Semaphore(ALIVE)
    try:
        seat = Seat(client, await replica.start(), Profile())
        cast = Cast(
            domain=domain,
            source=source,
            run=RUN,
            seats={"user": seat, "agent": seat},
            caller=ToolCaller(domain, retriever),
            max_turns=policy.max_turns or domain.max_turns,
            manager=make_manager(policy, retriever.embed, None) if policy.kind in MANAGED else None,
            patience=policy.patience,
            structured=policy.workflow == "structured",
        )

        play = CONVERSATIONS[policy.kind]

        async def one(index: int) -> Dialogue:
            async with free:
                return await play(cast, make_plan(domain, source, index)).play()

        return list(await asyncio.gather(*map(one, indices)))
    finally:
        await client.close()
        await replica.stop()
        await retriever.stop()
