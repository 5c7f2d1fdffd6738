"""How a user's traits bear on a dialogue: which one acts on a turn, and what that does to words.

Invariants: pure; every draw is of the dialogue's identity and the turn, so that a resumed dialogue
has the manners that the interrupted one would have had. What a trait does is held by a check of its
name on the turn's words; a small model that leaves an instruction alone is helped by what needs no
understanding: its words are cut at a clause's end, or a sentence of a person is put before them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import regex

from specs.ahead import behind, open_ahead
from specs.checks import result, says
from specs.domain import Domain, Edge, Fact, Speech
from specs.facts import fact_told, mistakable
from specs.mishearing import Misheard, misheard, rivals, to_correct
from specs.plan import Plan
from specs.records import CheckResult, Turn
from specs.scene import Scene
from specs.seeds import shuffled, uniform
from specs.trait_reader import CLOSING
from specs.traits import ASIDES, WITHOUT_EDGE, told
from specs.words import find, words

BRIEF = 5
"""Words that a terse user needs at most, unless no reference is that short."""

LEAVING = 0.3
"""The chance that somebody who gives up does so on a turn, from their second one on."""

DITHERING = 0.35
"""The chance that a vague user means nothing on a turn; never twice running."""

DITHERS = 2
"""How often a vague user does so at most: an agent that asks again and again tells nothing new."""

REVISING = 0.8
"""The chance that who changes their mind does so on a turn where the graph lets them; once."""

ERRING = 0.35
"""The chance that who has something wrong says so on a turn, from their second one on."""

MISHEARING = 0.5
"""The chance that the agent mishears who corrects it, on a turn that can be misheard; once."""

DOUBLING = 0.6
"""The chance that who says two things at once does so on a turn where the domain lets them."""

DOUBLES = 2
"""How often they do so at most."""

PRESSING = 0.5
"""The chance that an impatient user presses on a turn."""

_CLAUSE = regex.compile(r"[.!?;,:。！？；，、：…]+|\s[-–—]\s")
_MARKS = ".!?。！？…"


@dataclass(frozen=True, slots=True)
class Manner:
    """How one utterance of the user is to be.

    Attributes:
        traits: those that bear on it.
        told: stands behind the instruction.
        opening: a sentence that stands before the words, unless they hold it already.
        closing: phrases of which one is to be said; empty where none is.
        fact: what is to be said wrongly; None where nothing is.
        unheard: what is to be corrected: the edge that was meant, and the one it was taken for.
        meant: what they said of it before, which a person says again.
        then: the edge that is said as well, before it is asked for; None where one is said.
    """

    traits: tuple[str, ...] = ()
    told: str = ""
    opening: str = ""
    closing: tuple[tuple[str, ...], ...] = ()
    fact: Fact | None = None
    unheard: Misheard | None = None
    meant: str = ""
    then: Edge | None = None

    @property
    def brief(self) -> bool:
        """Whether few words are wanted."""
        return "terse" in self.traits

    def opened(self, said: str) -> str:
        """Return words with the opening before them."""
        if not self.opening or find(words(self.opening), words(said)) >= 0:
            return said
        return f"{self.opening} {said}"

    def bare(self, said: str) -> str:
        """Return words as the manager is to take them: without the sentence that denies another."""
        return said.removeprefix(self.opening).strip() if self.unheard else said

    def denies(self, said: str) -> bool:
        """Whether words hold the opening."""
        return find(words(self.opening), words(said)) >= 0

    def checks(self, said: str, most: int) -> list[CheckResult]:
        """Judge words, without the opening, by the traits that words alone tell of.

        Args:
            most: words that a terse user may need.
        """
        spoken, found = words(said), []
        if "terse" in self.traits:
            found.append(result("terse", float(len(spoken)), len(spoken) <= most))
        if "impatient" in self.traits:
            found.append(result("impatient", float(self.denies(said)), True))
        if "gives_up" in self.traits:
            leaves = any(find(phrase, spoken) >= 0 for phrase in self.closing)
            found.append(result("gives_up", None, leaves))
        return found

    def noted(self) -> dict[str, Any]:
        """Return what a turn records of it beside its checks."""
        return {} if self.fact is None else {"fact": self.fact.number}

    def errs(self, said: str, scope: Mapping[str, Any]) -> bool:
        """Whether words say what is wrong, and not what is right; true where there is no fact."""
        fact = self.fact
        if fact is None:
            return True
        return says(said, scope["slots"]["wrong"]) and not says(said, fact.right.evaluate(scope))


PLAIN = Manner()


def aside(domain: Domain, manner: Manner, trait: str) -> Speech:
    """Return how a user says by a trait what takes no edge."""
    return domain.trait_speeches[trait] if manner.fact is None else manner.fact.claim


def acting(plan: Plan, scene: Scene, turns: Sequence[Turn]) -> str:
    """Return the trait that makes this turn of the user another than a plain one, or nothing."""
    if (unheard := to_correct(scene.domain, turns)) and unheard[0] in scene.routable_edges():
        return "corrects_agent"
    mine = [turn for turn in turns if turn.role == "user"]
    before = [[name for name, _ in told(turn)] for turn in mine]

    def hits(name: str, chance: float) -> bool:
        wanted = name in plan.traits
        return wanted and uniform(plan.walk_id, scene.turn, "trait", name) < chance

    if mine and hits("gives_up", LEAVING):
        return "gives_up"
    changed = any("changes_mind" in names for names in before)
    if not changed and hits("changes_mind", REVISING) and revising(scene):
        return "changes_mind"
    again = bool(before) and not ASIDES.isdisjoint(before[-1])
    dithered = sum("vague" in names for names in before)
    if dithered < DITHERS and not again and hits("vague", DITHERING):
        return "vague"
    if mine and not again and hits("wrong_fact", ERRING) and mistaken(scene, turns):
        return "wrong_fact"
    return ""


def mistaken(scene: Scene, turns: Sequence[Turn]) -> Fact | None:
    """Return what the user has wrong here, each fact once; None where nothing is left."""
    known = {fact.number for turn in turns if (fact := fact_told(scene.domain, turn))}
    facts = [fact for fact in mistakable(scene) if fact.number not in known]
    return next(shuffled(facts, scene.plan.walk_id, scene.turn, "mistaken"), None)


def taken_for(plan: Plan, scene: Scene, turns: Sequence[Turn], edge: Edge) -> Edge | None:
    """Return the edge that the agent takes one for on this turn, once a dialogue; None mostly."""
    if "corrects_agent" not in plan.traits or any(misheard(scene.domain, one) for one in turns):
        return None
    if uniform(plan.walk_id, scene.turn, "trait", "corrects_agent") >= MISHEARING:
        return None
    return next(shuffled(rivals(scene, edge), plan.walk_id, scene.turn, "misheard"), None)


def revising(scene: Scene) -> Edge | None:
    """Return an edge on which the user takes a choice back; None where the graph has none open."""
    edges = [edge for edge in scene.routable_edges() if edge.revises]
    return next(shuffled(edges, scene.plan.walk_id, scene.turn, "revising"), None)


def manner(domain: Domain, plan: Plan, scene: Scene, turns: Sequence[Turn], trait: str) -> Manner:
    """Return how the user speaks on this turn.

    Args:
        trait: the one that acts on it (`acting`).
    """
    if not plan.traits:
        return PLAIN
    alone = trait in WITHOUT_EDGE  # told by the trait's own speech
    traits = [trait] if trait else []
    asides: list[str] = []
    opening = ""
    if "terse" in plan.traits:
        traits.append("terse")
        asides.append("terse")
    pressing = uniform(plan.walk_id, scene.turn, "trait", "impatient") < PRESSING
    corrects = trait == "corrects_agent"
    if corrects:
        opening = _opening(domain, plan, scene, turns, trait)
        asides.insert(0, trait)
    elif "impatient" in plan.traits and pressing and not alone:
        opening = _opening(domain, plan, scene, turns, "impatient")
    if opening and not corrects:
        traits.append("impatient")
        asides.append("impatient")
    closing = tuple(words(phrase) for phrase in domain.closing or CLOSING)
    return Manner(
        traits=tuple(traits),
        told=" ".join(_told(domain, scene, name, turns) for name in asides),
        opening=opening,
        closing=closing if trait == "gives_up" else (),
        fact=mistaken(scene, turns) if trait == "wrong_fact" else None,
        unheard=to_correct(domain, turns) if corrects else None,
        meant=turns[-2].text if corrects else "",
    )


def _told(domain: Domain, scene: Scene, name: str, turns: Sequence[Turn]) -> str:
    say = domain.trait_speeches[name].say
    if say is None:
        return ""
    return say.render(_scope(scene, turns), scene.draws("trait say", name))


def _scope(scene: Scene, turns: Sequence[Turn]) -> dict[str, Any]:
    """Return what a trait's words see: after an aside, what the agent said in it."""
    last = turns[-1] if turns else None
    own = last is not None and last.role == "agent" and bool(last.reply)
    return scene.scope() | {"reply": last.reply} if last is not None and own else scene.scope()


def _opening(domain: Domain, plan: Plan, scene: Scene, turns: Sequence[Turn], name: str) -> str:
    """Draw a sentence that this user has not begun with yet; nothing where none is left."""
    said = [turn.text for turn in turns if turn.role == "user"]
    references = domain.trait_speeches[name].references
    drawn = (
        reference.say.render(_scope(scene, turns), scene.draws("opening"))
        for reference in shuffled(references, plan.walk_id, scene.turn, "opening")
    )
    fresh = (text for text in drawn if not any(one.startswith(text) for one in said))
    return next(fresh, "")


def second(plan: Plan, scene: Scene, turns: Sequence[Turn], edge: Edge) -> Edge | None:
    """Return the edge that the user says as well as one, before it is asked for; None mostly."""
    before = sum("two_intents" in (name for name, _ in told(turn)) for turn in turns)
    if "two_intents" not in plan.traits or before >= DOUBLES:
        return None
    if uniform(plan.walk_id, scene.turn, "trait", "two_intents") >= DOUBLING:
        return None
    edges = [one for one in open_ahead(behind(scene, edge)) if one.weight]
    return next(shuffled(edges, plan.walk_id, scene.turn, "second"), None)


def doubled(domain: Domain, held: Manner, scene: Scene, then: Edge) -> Manner:
    """Return a manner in which a second edge is said as well."""
    said = _told(domain, scene, "two_intents", ())
    traits = (*held.traits, "two_intents")
    return replace(held, traits=traits, told=f"{said} {held.told}".strip(), then=then)


def cuts(said: str) -> list[tuple[str, str]]:
    """Return words cut in two at each end of a clause."""
    marks = ((said[: mark.start()], said[mark.end() :]) for mark in _CLAUSE.finditer(said))
    return [(head.strip(), tail.strip()) for head, tail in marks if head.strip() and tail.strip()]


def shortened(said: str, most: int) -> str:
    """Return the longest beginning of at most so many words that ends where a clause does.

    The words as they are, where they are few enough, or where no clause ends in time.
    """
    if len(words(said)) <= most:
        return said
    best = ""
    for mark in _CLAUSE.finditer(said):
        head = said[: mark.start()].rstrip()
        if 0 < len(words(head)) <= most:
            sentence = mark.group().strip()[:1] in _MARKS
            best = said[: mark.end()].rstrip() if sentence else f"{head}."
    return best or said
