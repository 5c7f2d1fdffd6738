"""What free words may mean: how people put the open edges, and the manager's verdict on a reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from actors.manager import Manager, Option, Question, Verdict
from actors.manners import cuts
from specs.ahead import behind, open_ahead
from specs.domain import Edge, Speech
from specs.errors import ExpressionError
from specs.scene import Scene, SceneError
from specs.seeds import shuffled

if TYPE_CHECKING:
    from actors.conversation import Conversation


COMPARED = 10
"""References of an edge that a reply is held against: short answers count as much as long ones."""

CUTS = 8
"""Places at which a reply is cut in two at most: each is two questions to the manager."""


def put(scene: Scene, speech: Speech, name: object, count: int) -> tuple[str, ...]:
    """Return how people put what a speech says: references that suit the document.

    Args:
        name: tells the draws for this speech from those for others, such as an edge's number.
    """
    texts: list[str] = []
    try:
        settled = scene.settle(speech, "user")
    except (ExpressionError, SceneError):
        return ()
    held = scene.slots
    order = shuffled(speech.references, scene.plan.walk_id, scene.turn, "put", name)
    for reference in order:
        try:
            scene.slots = scene.reference_slots(speech, "user", reference, settled)
            text = reference.say.render(scene.scope(), scene.draws("put", name))
        except (ExpressionError, SceneError):
            continue
        finally:
            scene.slots = held
        if text and "{" not in text:
            texts.append(text)
        if len(texts) == count:
            break
    return tuple(texts)


Pair = tuple[Edge, Edge]
"""Two edges that one utterance takes, in their order."""


async def pair_of(
    conversation: Conversation, manager: Manager, reply: str, about: object = ""
) -> tuple[Pair, float] | None:
    """Return the two edges that a reply takes, and how surely; None where it does not take two.

    It is cut where a clause ends: the manager has to find an open edge before the cut, and behind
    it one that may be said ahead from there. Of several such cuts the surest counts.
    """
    scene, domain = conversation.scene, conversation.cast.domain
    found: list[tuple[float, Pair]] = []
    for number, (head, tail) in enumerate(cuts(reply)[:CUTS]):
        name = f"{about}.{number}"
        one = await verdict(conversation, manager, head, scene.routable_edges(), f"{name}.1")
        if one.edge is None:
            continue
        edge = domain.edges[one.edge]
        ahead = behind(scene, edge)
        if ahead is None or not (edges := open_ahead(ahead)):
            continue
        other = await verdict(conversation, manager, tail, edges, f"{name}.2", ahead)
        if other.edge is not None:
            sure = min(score for score in (1.0, one.score, other.score) if score is not None)
            found.append((sure, (edge, domain.edges[other.edge])))
    if not found:
        return None
    score, pair = max(found, key=lambda each: each[0])
    return pair, score


def _closed(scene: Scene) -> list[Edge]:
    """Return the edges from here that cannot be taken now: what they stand for takes none.

    Else "I need work" would be a supper for who may only ask for that.
    """
    ways = scene.routable_edges()
    taken, known = {edge.number for edge in ways}, {edge.intent for edge in ways}
    here = scene.domain.edges_from(scene.node)
    return [edge for edge in here if edge.number not in taken and edge.intent not in known]


def able(reply: str, options: Sequence[Option], closes: Callable[[str], bool]) -> list[Option]:
    """Return what a reply may mean.

    What nobody says without a phrase of leave-taking is not meant without one: to leave is as like
    to stay as can be.

    Args:
        closes: whether words hold such a phrase.
    """
    if closes(reply):
        return list(options)
    return [one for one in options if not all(map(closes, one.texts))]


async def verdict(
    conversation: Conversation,
    manager: Manager,
    reply: str,
    edges: Sequence[Edge],
    about: object = "",
    scene: Scene | None = None,
    beside: Speech | None = None,
) -> Verdict:
    """Return which of the edges a reply takes, by a manager; the turn's record tells what it cost.

    Args:
        about: tells this question from others on the same turn.
        scene: where the edges start; where the conversation is if None.
        beside: what the user was told to say, and takes no edge: it is one of the answers.
    """
    scene = scene or conversation.scene
    meant = [(one, one.number) for one in edges] + [(one, None) for one in _closed(scene)]
    options = [Option(to, put(scene, one.speech, one.number, COMPARED)) for one, to in meant]
    options = able(reply, options, conversation.cast.closes)
    if beside is not None:
        options.append(Option(None, put(scene, beside, "beside", COMPARED)))
    cards = conversation.cast.cards
    found = await manager.route(
        Question(
            id=f"{conversation.plan.walk_id}:{scene.turn}:route{about}",
            priority=conversation.plan.index,
            reply=reply,
            heard=scene.heard,
            names=(cards["agent"].name, cards["user"].name),
            options=tuple(option for option in options if option.texts),
        )
    )
    conversation.managed += found.tokens
    return found
