"""The figures of one dialogue, each a number by name, for filters, frontier and report.

Invariant: what says something about quality is taken over the model's own turns alone and is None
where a dialogue has none; `reference_share` stands beside it, so that a person's references cannot
hide a weak model. Nothing needs a model, unless subgoals are to be found by embeddings; nothing
depends on a script.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields

from specs.domain import Domain
from specs.engine import REFERENCE
from specs.errors import ExpressionError
from specs.records import Turn
from specs.replay import Replayed
from specs.subgoals import furthest, possible
from specs.words import words
from trainer.consistency import Followed, Inconsistency
from trainer.likeness import SubgoalGauge
from trainer.persona import coverage, rank

REPEATED_RUN = 4
"""Words of a run whose repetition within a dialogue counts."""

OWN = frozenset({"model", "repair"})
"""The sources of a turn that the model has worded itself."""


@dataclass(frozen=True, slots=True)
class Measures:
    """One dialogue's figures; see `columns`.

    Attributes:
        turns, user_turns: how many.
        words_per_turn: words of an own turn, on average.
        own_share, reference_share: shares of turns that the model worded itself, and of those in
            which a person's reference stands.
        ended: 1 when it ended in an end state, else 0.
        subgoals_reached, subgoals_relative: states of the domain's `subgoals` that the walk
            entered; as a share of those on the best path that its goal leaves open
            (`specs.subgoals`).
        subgoals_said, subgoals_said_relative: subgoals that an own utterance of the agent speaks
            for, along the furthest path: of all subgoals' references, rendered there and then, it
            is most like one of that state's, and like enough (after Ulmer et al., 2024, who take
            ROUGE-L and 0.33; `trainer.likeness`); as a share of the best path's subgoals that have
            references.
        groundedness: mean of what `grounded` measured, over the agent's own turns that it judges.
        rejected_share: candidates that failed, as a share of all that the models wrote.
        persona_coverage: share of the persona's content words that the user's own turns hold
            (persona coverage of Song et al., 2019, without its weights); it says whether the
            persona is used, not whether it is contradicted.
        persona_rank: share of the domain's other personas of whose words the user's own turns hold
            less (`trainer.persona`); for reading only, as it does not tell personas apart yet.
        distinct_1, distinct_2, distinct_3: different n-grams as a share of all, over the own turns
            (Li et al., 2016).
        compression_ratio: bytes of the own turns' text over its bytes under zlib (Shaib et al.,
            2024): higher is more repetitive.
        repetition: share of the own turns' runs of REPEATED_RUN words that stood before.
        inconsistencies: how many (`trainer.consistency`), references included.
        prompt_tokens, completion_tokens: what it cost, over all turns.
    """

    turns: float
    user_turns: float
    words_per_turn: float | None
    own_share: float | None
    reference_share: float | None
    ended: float
    subgoals_reached: float
    subgoals_relative: float | None
    subgoals_said: float | None
    subgoals_said_relative: float | None
    groundedness: float | None
    rejected_share: float | None
    persona_coverage: float | None
    persona_rank: float | None
    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None
    compression_ratio: float | None
    repetition: float | None
    inconsistencies: float
    prompt_tokens: float
    completion_tokens: float

    def columns(self) -> dict[str, float | None]:
        """Return the figures by name, in the order of NAMES."""
        return dict(zip(NAMES, astuple(self), strict=True))


NAMES: tuple[str, ...] = tuple(field.name for field in fields(Measures))
"""What a filter may be about."""


def measure(followed: Followed, found: Sequence[Inconsistency], subgoals: SubgoalGauge) -> Measures:
    """Return a dialogue's figures.

    Args:
        followed: the dialogue, played again (`trainer.consistency.follow`).
        found: its inconsistencies.
        subgoals: tells which subgoal an utterance speaks for.
    """
    dialogue, domain = followed.dialogue, followed.domain
    turns = dialogue.turns
    own = [turn for turn in turns if turn.source in OWN]
    spoken = [words(turn.text) for turn in own]
    by_user = [turn.text for turn in own if turn.role == "user"]
    memory = turns[0].memory if turns else {}
    names, sayable = _subgoals_said(followed, subgoals)
    said = None if names is None else float(furthest(domain, memory, names))
    rejected = sum(len(turn.rejected) for turn in turns)
    reached = len(dialogue.subgoals_reached)
    return Measures(
        turns=len(turns),
        user_turns=sum(turn.role == "user" for turn in turns),
        words_per_turn=_mean(map(len, spoken)),
        own_share=_share(len(own), len(turns)),
        reference_share=_share(sum(turn.source == "reference" for turn in turns), len(turns)),
        ended=float(dialogue.ended),
        subgoals_reached=reached,
        subgoals_relative=_share(reached, possible(domain, memory)),
        subgoals_said=said,
        subgoals_said_relative=(
            None if said is None else _share(said, furthest(domain, memory, sayable))
        ),
        groundedness=_mean(_grounded(own)),
        rejected_share=_share(rejected, rejected + len(own)),
        persona_coverage=coverage(dialogue.persona, by_user),
        persona_rank=rank(dialogue.persona, [one.text for one in domain.personas], by_user),
        distinct_1=distinct(spoken, 1),
        distinct_2=distinct(spoken, 2),
        distinct_3=distinct(spoken, 3),
        compression_ratio=compression_ratio(turn.text for turn in own),
        repetition=_repetition(spoken),
        inconsistencies=len(found),
        prompt_tokens=sum(turn.prompt_tokens for turn in turns),
        completion_tokens=sum(turn.completion_tokens + turn.managed_tokens for turn in turns),
    )


def own_texts(turns: Iterable[Turn]) -> list[str]:
    """Return what the model has worded itself, turn by turn."""
    return [turn.text for turn in turns if turn.source in OWN]


def ngrams(texts: Iterable[Sequence[str]], n: int) -> list[tuple[str, ...]]:
    """Return all runs of n words, none across two texts."""
    return [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]


def distinct(texts: Sequence[Sequence[str]], n: int) -> float | None:
    """Return the share of different n-grams (Li et al., 2016); None where there is none."""
    runs = ngrams(texts, n)
    return _share(len(set(runs)), len(runs))


def compression_ratio(texts: Iterable[str]) -> float | None:
    """Return bytes over compressed bytes (zlib, level 6); None for no text."""
    data = "\n".join(texts).encode()
    return len(data) / len(zlib.compress(data)) if data else None


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return _share(sum(found), len(found))


def _grounded(own: Sequence[Turn]) -> list[float]:
    return [
        check.value
        for turn in own
        if turn.role == "agent"
        for check in turn.checks
        if check.name == "grounded" and check.value is not None
    ]


def _repetition(spoken: Sequence[Sequence[str]]) -> float | None:
    different = distinct(spoken, REPEATED_RUN)
    return None if different is None else 1 - different


# -- subgoals by words


def own_agent_turns(followed: Followed) -> list[Replayed]:
    """Return the agent's turns that the model has worded itself."""
    return [t for t in followed.turns if t.turn.role == "agent" and t.turn.source in OWN]


def subgoal_references(domain: Domain, replayed: Replayed) -> Iterator[tuple[str, str]]:
    """Yield the references of each subgoal's state with its name, as they read at a turn."""
    for name in domain.subgoals:
        for text in _references(domain, name, replayed):
            yield name, text


def other_references(domain: Domain, replayed: Replayed) -> Iterator[str]:
    """Yield the references of all other states, as they read at a turn: they say no subgoal."""
    subgoals = frozenset(domain.subgoals)
    for name in domain.states:
        if name not in subgoals:
            yield from _references(domain, name, replayed)


def _references(domain: Domain, state: str, replayed: Replayed) -> Iterator[str]:
    for reference in domain.states[state].speech.references:
        try:
            yield reference.say.render(replayed.scope)
        except ExpressionError:
            continue  # it speaks of what is not there yet, or draws its words


def _subgoals_said(followed: Followed, gauge: SubgoalGauge) -> tuple[set[str] | None, set[str]]:
    """Return the subgoals that own utterances speak for (None without any), and all there are."""
    domain = followed.domain
    # A reference engine's words are taken for its own: they show the most that can be found.
    perfect = [t for t in followed.turns if t.turn.role == "agent" and t.turn.model == REFERENCE]
    own = perfect or own_agent_turns(followed)
    sayable = {name for name in domain.subgoals if domain.states[name].speech.references}
    said: set[str] = set()
    for replayed in own:
        references = list(subgoal_references(domain, replayed))
        others = other_references(domain, replayed)
        said |= gauge.named(replayed.turn.text, references, others)
    return (said if own else None), sayable
