"""Train, validation and test by seed document, so that no document is on two sides.

Documents stand in an order that depends on the seed and their own id alone. The test split takes
them from the front, validation from the back, so that a document that joins later moves few others,
and none between test and validation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from specs.errors import Finding, InputError, Where
from specs.seeds import seed

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def unit(walk_id: str, document: str) -> str:
    """Return what is never divided: the seed document, or the dialogue where there is none."""
    return f"document {document}" if document else f"dialogue {walk_id}"


def split_findings(validation: float, test: float) -> list[Finding]:
    """Return what is wrong with the shares."""
    if validation + test < 1:
        return []
    message = f"validation = {validation:g} and test = {test:g} leave nothing to train on"
    return [Finding(Where("curate"), message, "Together they must be below 1.")]


def split(units: Iterable[str], validation: float, test: float, seed_: int) -> dict[str, Split]:
    """Return each unit's side.

    Every side that is asked for (a share above 0) gets at least one unit; beyond that its count is
    the share, rounded.

    Args:
        units: from `unit`; one that comes again counts once.
        validation, test: shares of the units.

    Raises:
        InputError: there are fewer units than sides.
    """
    order = sorted(set(units), key=lambda one: (seed(seed_, "split", one), one))
    sides = 1 + (validation > 0) + (test > 0)
    if len(order) < sides:
        raise _too_few(order, sides)
    tested = _count(test, len(order), 1 + (validation > 0))
    validated = _count(validation, len(order), 1 + tested)
    found: dict[str, Split] = dict.fromkeys(order, "train")
    found.update(dict.fromkeys(order[:tested], "test"))
    found.update(dict.fromkeys(order[len(order) - validated :], "validation"))
    return found


def _count(share: float, units: int, others: int) -> int:
    """Return how many units a share is, when `others` must be left."""
    return min(max(1, round(share * units)), units - others) if share > 0 else 0


def _too_few(order: list[str], sides: int) -> InputError:
    what = "dialogues" if order and order[0].startswith("dialogue") else "seed documents"
    there = f"{len(order)} {what}" if len(order) != 1 else f"only one of the {what}"
    message = f"the kept dialogues have {there}, which cannot stand on {sides} sides of a split"
    hint = (
        "Play more dialogues (--set run.dialogues=N), give the domain more documents, or do with "
        "fewer sides (--set curate.test=0 --set curate.validation=0)."
    )
    return InputError([Finding(Where("curate"), message, hint)])
