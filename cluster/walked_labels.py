"""A run's own agent turns, labelled by the subgoal in whose state they were spoken.

In a walk the state is known, so that what a model says there is labelled by its making: not by
people, but in the words that `subgoals_said` has to judge.
"""

from __future__ import annotations

from pathlib import Path

from cluster.made import read_made
from cluster.run_folder import MANIFEST, RunFolder
from specs.errors import Finding, InputError, Where
from specs.parts import read_dialogues
from specs.replay import source_of
from trainer.consistency import follow
from trainer.labelled import Labelled
from trainer.measures import other_references, own_agent_turns, subgoal_references


def is_run(path: Path) -> bool:
    """Return whether a folder holds a run."""
    return (path / MANIFEST).is_file()


def walked_labels(path: Path) -> list[Labelled]:
    """Return the agent turns of a run that its model worded itself.

    Raises:
        InputError: the run has none, or they cannot be read.
    """
    folder = RunFolder.at(str(path))
    if "run_file" not in (folder.manifest() or {}):
        message = "holds people's dialogues, whose turns have no states and no references"
        hint = "calibrate on the folder that they were imported from: duologue calibrate STAR"
        raise InputError([Finding(Where(str(path)), message, hint)])
    made = read_made(folder)
    domain = made.place.open()
    turns: list[Labelled] = []
    for dialogue in read_dialogues(folder.round().child("dialogues")):
        followed = follow(dialogue, domain, source_of(dialogue, made.run.run.seed))
        for replayed in own_agent_turns(followed):
            references: dict[str, tuple[str, ...]] = {}
            for name, text in subgoal_references(domain, replayed):
                references[name] = (*references.get(name, ()), text)
            turn = replayed.turn
            label = turn.state if turn.state in references else None
            others = tuple(other_references(domain, replayed))
            turns.append(Labelled(dialogue.walk_id, turn.text, label, references, True, others))
    if not turns:
        message = "there is no turn of the agent in a model's own words"
        raise InputError([Finding(Where(str(path)), message)])
    return turns
