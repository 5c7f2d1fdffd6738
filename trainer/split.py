"""Train, validation and test by seed document, so that no two sides are about the same document.

Among the results of a search a document may be shown on any side. Each seed document has a place in
[0, 1) that depends on the seed and its own id alone; below the test split's share it is tested on,
at the other end it validates. So runs of one domain and seed hold the same documents back, whatever
else each of them kept: none learns from dialogues about what another is tested on, and a document
that joins later moves no other (but where a side had none, and was lent one).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from specs.errors import Finding, InputError, Where
from specs.seeds import uniform

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class TooFewUnits(InputError):
    """What was kept cannot stand on all sides that are asked for."""


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

    A side holds its share of many units, about; every side that is asked for (a share above 0) gets
    at least one, whatever the places of few.

    Args:
        units: from `unit`; one that comes again counts once.
        validation, test: shares of the units.

    Raises:
        TooFewUnits: there are fewer units than sides.
    """
    places = {one: uniform(seed_, "split", one) for one in units}
    order = sorted(places, key=lambda one: (places[one], one))
    sides = 1 + (validation > 0) + (test > 0)
    if len(order) < sides:
        raise _too_few(order, sides)
    below = sum(place < test for place in places.values())
    above = sum(place >= 1 - validation for place in places.values())
    tested = _count(test, below, len(order) - 1 - (validation > 0))
    validated = _count(validation, above, len(order) - 1 - tested)
    found: dict[str, Split] = dict.fromkeys(order, "train")
    found.update(dict.fromkeys(order[:tested], "test"))
    found.update(dict.fromkeys(order[len(order) - validated :], "validation"))
    return found


def _count(share: float, found: int, most: int) -> int:
    """Return how many units a side gets that found some, and may have so many."""
    return min(max(1, found), most) if share > 0 else 0


def _too_few(order: list[str], sides: int) -> TooFewUnits:
    what = "dialogues" if order and order[0].startswith("dialogue") else "seed documents"
    there = f"{len(order)} {what}" if len(order) != 1 else f"only one of the {what}"
    message = f"the kept dialogues have {there}, which cannot stand on {sides} sides of a split"
    hint = (
        "Play more dialogues (--set run.dialogues=N), give the domain more documents, or do with "
        "fewer sides (--set curate.test=0 --set curate.validation=0)."
    )
    return TooFewUnits([Finding(Where("curate"), message, hint)])
