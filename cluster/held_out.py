"""Has an adapter learned from what it is to be measured on?

What an adapter learned is known, dialogue by dialogue, while the train split that its manifest
names by digest is there. After another curation it is not: the documents held back may be others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.chat_file import ChatFile, Origin
from trainer.data import drawn

_AGAIN = (
    "Train it on what is there now: duologue train RUN.toml (it starts over where the train split "
    "has changed)."
)
_ONE_SPLIT = (
    "Give both runs the same domain, curate.test and curate.seed, then curate and train that one "
    "again; where they have, a split of few documents was lent one: play more dialogues."
)


@dataclass(frozen=True, slots=True)
class Leak:
    """Why figures over some dialogues would say little of an adapter.

    Attributes:
        sure: False where what the adapter learned is not known.
    """

    message: str
    hint: str = ""
    sure: bool = True


def trained_on(manifest: Mapping[str, Any]) -> str:
    """Return the digest of the train split that an adapter was made from; empty if not known."""
    return str(manifest.get("data", {}).get("digests", {}).get("train", ""))


def mixed(manifest: Mapping[str, Any]) -> bool:
    """Return whether an adapter has learned from dialogues of earlier rounds as well."""
    return "earlier" in manifest.get("data", {}).get("digests", {})


def identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells an adapter from others: what it was made from, and when."""
    found = {key: manifest.get(key) for key in ("training", "made")}
    return {**found, "train_split": trained_on(manifest) or None}


def amounts(manifest: Mapping[str, Any]) -> dict[str, int | None]:
    """Return on how much an adapter was trained (`trainer.comparison.AMOUNTS`), as far as known."""
    data, figures = manifest.get("data", {}).get("train", {}), manifest.get("figures", {})
    return {
        "dialogues": data.get("dialogues"),
        "examples": figures.get("examples"),
        "trained_tokens": data.get("trained_tokens"),
        "steps": figures.get("steps"),
    }


def leaks(manifest: Mapping[str, Any], train: ChatFile | None, test: ChatFile) -> Leak | None:
    """Return what keeps dialogues from being held out from an adapter; None where they are.

    Args:
        train: the train split that the adapter's run has now.
        test: the dialogues that it would be asked about.

    Raises:
        InputError: a file that breaks off.
    """
    known = trained_on(manifest)
    if not known:
        return Leak(
            f"its manifest does not say what it was trained on, so that nobody knows whether "
            f"{test.path} was among it",
            sure=False,
        )
    if train is None:
        return Leak(
            f"the train split that it was trained on is not there, so that nobody knows whether "
            f"{test.path} was among it",
            sure=False,
        )
    digest = train.digest()
    if digest != known:
        return Leak(
            f"was trained on another train split ({known[:8]}) than {train.path} ({digest[:8]}): "
            f"it may have learned from {test.path}",
            _AGAIN,
        )
    shared = _shared(_learned(manifest, train), test.origins())
    return Leak(f"was trained on {shared} of {test.path}", _ONE_SPLIT) if shared else None


def _learned(manifest: Mapping[str, Any], train: ChatFile) -> list[Origin]:
    """Return where the dialogues come from that were learned from: all, or those drawn."""
    settings, origins = manifest.get("settings", {}), list(train.origins())
    most = settings.get("dialogues")
    if most is None or mixed(manifest):  # drawn from earlier rounds' dialogues as well
        return origins
    taken = drawn((one.walk_id for one in origins), most, settings.get("seed", 0))
    return [one for one in origins if one.walk_id in taken]


def _shared(learned: Iterable[Origin], asked: Iterable[Origin]) -> str:
    """Return, in words, how many of the asked documents, or else dialogues, were learned from."""
    learned, asked = list(learned), list(asked)
    for what, place in (("seed documents", 1), ("dialogues", 0)):
        of = {origin[place] for origin in asked} - {""}
        both = of & {origin[place] for origin in learned}
        if both:
            return f"{len(both)} of the {len(of)} {what}"
    return ""
