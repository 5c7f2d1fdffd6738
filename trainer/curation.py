"""The curation: measures, filters, split and training examples, in bounded memory.

Each dialogue part is read once (`trainer.measuring`); the decisions are made on columns of numbers;
then the rows are written (`trainer.curation_files`). Invariants: the dialogues are never changed;
what a curation before has left stays until all files of the new one are complete; nothing is
written when nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from specs.errors import Finding, InputError, Where
from specs.parts import clear_temporaries, part_findings
from specs.records import dialogue_schema
from specs.run_file import CurateSection
from trainer.curated import HINT, Curated, NothingKept, Task, TooFewKept, state
from trainer.curation_files import EXAMPLES, CurationWriter, figures
from trainer.filters import Decision, Mask, chain, findings
from trainer.measured import Decided, Instruments, Measured, taken
from trainer.measuring import measure_part
from trainer.split import TooFewUnits, split, split_findings, unit
from trainer.vectors import VectorFile


def setting_findings(section: CurateSection, names: Iterable[str]) -> list[Finding]:
    """Return what is wrong with the settings, whatever the dialogues are."""
    wrong = findings(section.filters, names, section.judge is not None)
    return wrong + split_findings(section.validation, section.test)


# -- the stages


def curate(
    task: Task,
    tools: Instruments,
    say: Callable[[str], None],
    measure: Callable[[Sequence[str]], Iterator[int]] | None = None,
) -> Curated:
    """Curate the dialogues of a round.

    Args:
        say: is told what goes on.
        measure: does `measure_part` for every part, side by side where it can; here one after the
            other.

    Raises:
        NothingKept: naming the filters that took them; nothing is written.
        TooFewKept: what they left cannot be split as asked for; nothing is written.
        InputError: no dialogues, settings that cannot be, a part that cannot be read, too few
            documents for a split.
        DuologueError: the disk is full, and the like; what was there stays.
    """
    section = task.section
    wrong = setting_findings(section, tools.gauges.names)
    if wrong:
        raise InputError(wrong)
    curation, parts = state(task)
    names = [part["name"] for part in parts]
    wrong = part_findings(task.dialogues, names, dialogue_schema())
    if wrong:  # before hours are spent on the others
        raise InputError(wrong)
    task.quality.create()
    task.curated.create()
    _clear(task)
    try:
        _measure(task, tools, names, measure, say)
        with VectorFile() as vectors:
            view = Measured(task, tools, names, vectors)
            view.read()
            result = _decide(view, say)
            return CurationWriter(view, result, curation, parts).write()
    finally:
        _clear(task)


def _clear(task: Task) -> None:
    for folder in (task.quality, task.curated):
        clear_temporaries(folder)


def _measure(
    task: Task,
    tools: Instruments,
    names: Sequence[str],
    measure: Callable[[Sequence[str]], Iterator[int]] | None,
    say: Callable[[str], None],
) -> None:
    def here(parts: Sequence[str]) -> Iterator[int]:
        for part in parts:
            yield measure_part(
                task.dialogues, part, task.quality, tools.gauges, task.section.filters
            )

    done = 0
    for number, rows in enumerate((measure or here)(names), 1):
        done += rows
        say(f"measured {done} dialogues ({number} of {len(names)} parts)")
    if not done:
        raise InputError([Finding(Where(task.dialogues.path), "holds no dialogue", HINT)])


def _decide(view: Measured, say: Callable[[str], None]) -> Decided:
    section, table = view.task.section, view.table
    decisions, kept = chain(section.filters, table, section.seed, view.duplicates)
    usable = np.array(view.usable, dtype=np.bool_)
    if (kept & ~usable).any():
        asked = kept.copy()
        decisions.append(Decision(EXAMPLES, asked, asked & usable, lambda row: ""))
        kept = kept & usable
    if not kept.any():
        raise _nothing_kept(view, decisions, kept)
    units = [unit(table.walk_ids[i], table.documents[i]) for i in np.flatnonzero(kept)]
    try:
        sides = split(units, section.validation, section.test, section.seed)
    except TooFewUnits as few:
        summary = figures(view, kept, view.tools.corpus())
        raise TooFewKept(few.findings, summary) from None
    say(f"kept {int(kept.sum())} of {len(table)} dialogues")
    return Decided(decisions, kept, sides)


def _nothing_kept(view: Measured, decisions: Sequence[Decision], kept: Mask) -> NothingKept:
    played = len(view.table)
    took = ", ".join(f"{name} {count}" for name, count, _ in taken(decisions, played) if count)
    last = next(name for name, _, left in taken(decisions, played) if not left)
    message = f"all {played} dialogues were filtered out: {took}; nothing was written"
    hint = f"Loosen curate.filters (the last ones fell to {last!r}), or play more dialogues."
    found = Finding(Where(view.task.dialogues.path), message, hint)
    return NothingKept([found], figures(view, kept, view.tools.corpus()))
