"""What keeps a round from making the agent worse: pure, one line for people each.

A model that learns from what it said itself may fall into saying little, and the same: so there
must be dialogues enough to learn from, they must differ, and the agent must do no worse than the
one before where it has not learned.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.round_note import Guard, Tried


def survivors(examples: int, least: int, why: str = "") -> Guard:
    """Judge whether enough dialogues are left to train on.

    Args:
        examples: of the train split.
        why: there are none.
    """
    line = f"{examples} dialogues to learn from, of {least} at least (rounds.least)"
    return Guard(name="survivors", passed=examples >= least, line=f"{line}: {why}" if why else line)


def diversity(now: float | None, first: float | None, floor: float) -> Guard:
    """Judge whether the dialogues kept are as varied as they have to be.

    Args:
        now, first: diversity of this round's and the first round's; None where two dialogues were
            not there to compare.
        floor: the share of the first that this one's must have.
    """
    if now is None or first is None:
        line = "the diversity of fewer than two dialogues is not known"
        return Guard(name="diversity", passed=True, line=line)
    line = (
        f"diversity {now:.3f}, of {floor * first:.3f} at least "
        f"({floor:g} of the first round's, rounds.diversity)"
    )
    return Guard(name="diversity", passed=now >= floor * first, line=line)


def success(now: Sequence[Tried], before: Sequence[Tried]) -> Guard | None:
    """Judge whether an agent does no worse than the one before, beyond chance.

    It is judged where it has not learned (domains held out), or, without any, in its own domain.

    Args:
        now, before: what each reached, in the same domains.

    Returns:
        None where nothing was tried.
    """
    held_out = [one for one in now if not one.own] or list(now)
    lows = {one.domain: one for one in before}
    pairs = [(one, lows[one.domain]) for one in held_out if one.domain in lows]
    if not pairs:
        return None
    lines = [
        f"{one.domain}: {one.mean:.2f} of the subgoals said, after {last.mean:.2f} "
        f"[{last.low:.2f}, {last.high:.2f}]"
        for one, last in pairs
    ]
    passed = all(one.mean >= last.low for one, last in pairs)
    return Guard(name="success", passed=passed, line="; ".join(lines))
