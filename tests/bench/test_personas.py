"""Can a persona's own utterances be told from another's? How often each candidate measure can.

A dialogue's user turns are compared with the text of its own persona and with that of each other
persona of the domain; right is what likes its own better (equals count half, chance is 0.5).
Nothing is fitted, so every pair is held out. Rehearsals speak references, which know a persona's
name and little else; runs of models are given by their folders:

    DUOLOGUE_BENCH_RUNS=runs/demo:runs/gate make bench PYTEST_ARGS='-k personas'
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from actors.retrieval.embedding import load_embedder
from cluster.made import read_made
from cluster.rehearsal import rehearse
from cluster.run_folder import RunFolder
from specs.domain import Domain
from specs.loader import open_domain
from specs.parts import read_dialogues
from specs.records import Dialogue
from specs.words import sentences
from trainer.bootstrap import Floats, Resamples
from trainer.measures import OWN
from trainer.persona import coverage
from trainer.vectors import Embed

RUNS = [Path(one) for one in os.environ.get("DUOLOGUE_BENCH_RUNS", "").split(":") if one]
REHEARSED = 200

Speeches = list[tuple[str, list[str]]]
"""The text of a dialogue's persona, and what its user said."""


def speeches(dialogues: Sequence[Dialogue], sources: frozenset[str]) -> Speeches:
    found = [
        (one.persona, [t.text for t in one.turns if t.role == "user" and t.source in sources])
        for one in dialogues
    ]
    return [(persona, texts) for persona, texts in found if texts]


def corpora() -> Iterator[tuple[str, Domain, Speeches]]:
    for name in ("tavern", "healer", "recipe"):
        domain = open_domain(name)
        spoken = rehearse(domain, REHEARSED, 0, 1)
        yield f"rehearsed {name}", domain, speeches(spoken, frozenset({"reference"}))
    for path in RUNS:
        folder = RunFolder.at(str(path))
        domain = read_made(folder).place.open()
        spoken = list(read_dialogues(folder.round().child("dialogues")))
        yield str(path), domain, speeches(spoken, OWN)


def by_words(personas: Sequence[str], spoken: Speeches) -> Floats:
    return np.array([[coverage(one, texts) or 0.0 for one in personas] for _, texts in spoken])


def by_meaning(embed: Embed) -> Callable[[Sequence[str], Speeches], Floats]:
    """Score by the cosine of a persona's sentences with the utterance that is nearest to each."""

    def score(personas: Sequence[str], spoken: Speeches) -> Floats:
        texts = sorted({text for _, texts in spoken for text in texts})  # references come often
        row = {text: place for place, text in enumerate(texts)}
        vectors = embed(texts)
        about = [embed(sentences(one)) for one in personas]
        said = [vectors[[row[text] for text in texts]] for _, texts in spoken]
        return np.array([[float((p @ s.T).max(axis=1).mean()) for p in about] for s in said])

    return score


def accuracy(personas: Sequence[str], spoken: Speeches, scores: Floats) -> str:
    own = np.array([personas.index(persona) for persona, _ in spoken])
    mine = scores[np.arange(len(own)), own][:, None]
    right = (mine > scores) + 0.5 * (mine == scores)
    right[np.arange(len(own)), own] = 0
    sums = np.stack([right.sum(axis=1) / (len(personas) - 1), np.ones(len(own))], axis=1)
    found = Resamples.draw(len(own), 2000, 0).interval(lambda all_: all_[:, 0] / all_[:, 1], sums)
    assert found is not None
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


@pytest.mark.timeout(3600)
def test_personas(capsys: pytest.CaptureFixture[str]) -> None:
    candidates = {"words": by_words, "meaning": by_meaning(load_embedder("minilm").encode)}
    for name, domain, spoken in corpora():
        personas = sorted({one.text for one in domain.personas})
        for kind, measure in candidates.items():
            scores = measure(personas, spoken)
            # Some personas are liked by everybody: what they have on average tells nobody apart.
            levelled = scores - scores.mean(axis=0)
            with capsys.disabled():
                print(
                    f"\n{name}, {len(spoken)} dialogues, {len(personas)} personas, {kind}: "
                    f"{accuracy(personas, spoken, scores)}; "
                    f"less each persona's mean {accuracy(personas, spoken, levelled)}"
                )
