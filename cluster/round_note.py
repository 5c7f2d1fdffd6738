"""What a run notes of one of its rounds, in the round's `round.json`: pure data.

A round without a note is one of which nothing was worth noting yet.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from specs.errors import Finding, InputError, Where
from specs.parts import Folder, storage_error

NOTE = "round.json"


class _Note(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Durable(_Note):
    """How many dialogues were in parts, and when that was seen."""

    dialogues: int
    at: str


class Player(_Note):
    """Who plays the agent in a round.

    Attributes:
        adapter: its folder, relative to the run's where it is one of the run's own rounds; empty
            for the run file's own agent.
        training: which adapter that is (`trainer.adapter.trained_as`); empty without one.
        of: the round whose adapter it is; None for the run file's own agent.
    """

    adapter: str = ""
    training: str = ""
    of: int | None = None


class Guard(_Note):
    """What was looked at before a round was promoted, in a line for people."""

    name: Literal["survivors", "diversity", "success"]
    passed: bool
    line: str


class Tried(_Note):
    """What an agent reached in a trial: subgoals said in its own words, with intervals.

    Attributes:
        domain: its name.
        own: it is the domain that the run learns from.
        dialogues: that could be measured.
        mean, low, high: subgoals as a share of those of the best path.
        absolute: their mean number.
        halfway: the share of dialogues that reached half of them.
        ended: the share that ended in an end state.
        persona: mean `persona_coverage` of the users; None where none was measured.
        diversity: `rouge_diversity` of the agent's own words; None of fewer than two dialogues.
        references: share of the agent's utterances that a person's references stood in for.
    """

    domain: str
    own: bool
    dialogues: int
    mean: float
    low: float
    high: float
    absolute: float
    halfway: float
    ended: float
    persona: float | None = None
    diversity: float | None = None
    references: float | None = None


class Verdict(_Note):
    """What became of a round, when it was over.

    Attributes:
        promoted: its adapter plays the agent of the next one.
        training: which adapter was judged (`trainer.adapter.trained_as`); empty for none.
        kept: dialogues that curation left.
    """

    promoted: bool
    training: str
    at: str
    kept: int = 0
    guards: tuple[Guard, ...] = ()
    trials: tuple[Tried, ...] = ()


class RoundNote(_Note):
    """One round's note.

    Attributes:
        player: who plays its agent; None for the first round, which the run file decides.
        durable: how many dialogues were in its parts.
        retried: the attempts, by index, of dialogues that were taken out to be played again.
        trials: of the run file's own agent, which no round has trained: in the first round's note.
        verdict: None until the round is over.
    """

    player: Player | None = None
    durable: Durable | None = None
    retried: dict[int, int] = Field(default_factory=dict)
    trials: tuple[Tried, ...] = ()
    verdict: Verdict | None = None


def read_note(folder: Folder) -> RoundNote:
    """Return the note of the round in a folder.

    Raises:
        InputError: it cannot be read.
    """
    try:
        data = folder.read_bytes(NOTE)
    except (FileNotFoundError, NotADirectoryError):
        return RoundNote()
    except OSError as error:
        raise storage_error(error, folder.file(NOTE)) from error
    try:
        return RoundNote.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
        hint = "Move it out of the run's folder: what it noted is then looked at again."
        where = Where(folder.file(NOTE))
        raise InputError([Finding(where, f"is not readable: {reason}", hint)]) from None


def write_note(folder: Folder, note: RoundNote) -> None:
    """Replace the note; raises DuologueError when the disk is full, and the like."""
    folder.write_bytes(NOTE, (note.model_dump_json(indent=1) + "\n").encode())
