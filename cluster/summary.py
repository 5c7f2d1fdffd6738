"""What a run has made, in figures: one streaming pass over the dialogues."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from specs.records import Dialogue, Turn
from specs.traits import acted, told

OWN = ("model", "repair")
"""Sources that count as the model's own words."""


@dataclass(slots=True)
class Share:
    """How many turns of one intent or state there are, and how many are the model's own words."""

    turns: int = 0
    own: int = 0

    @property
    def share(self) -> float:
        """The model's own share."""
        return self.own / self.turns if self.turns else 0.0


@dataclass(slots=True)
class TraitCount:
    """How many dialogues and turns one trait was planned and told for, and in how many it acted."""

    planned: int = 0
    dialogues: int = 0
    told: int = 0
    turns: int = 0


@dataclass(slots=True)
class Summary:
    """The figures of a set of dialogues."""

    dialogues: int = 0
    turns: int = 0
    own: Share = field(default_factory=Share)
    stops: Counter[str] = field(default_factory=Counter)
    intents: dict[str, Share] = field(default_factory=dict)
    states: dict[str, Share] = field(default_factory=dict)
    traits: dict[str, TraitCount] = field(default_factory=dict)
    failed_checks: Counter[str] = field(default_factory=Counter)
    completion_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    managed_tokens: int = 0

    @property
    def ended(self) -> float:
        """The share of dialogues that ended in an end state."""
        return self.stops["ended"] / self.dialogues if self.dialogues else 0.0

    def add(self, dialogue: Dialogue) -> None:
        """Count one dialogue in."""
        self.dialogues += 1
        self.turns += len(dialogue.turns)
        self.stops[dialogue.stop_reason.value] += 1
        for name, turns in acted(dialogue).items():
            count = self.traits.setdefault(name, TraitCount())
            count.planned += 1
            count.dialogues += bool(turns)
            count.turns += len(turns)
            count.told += sum(name == one for turn in dialogue.turns for one, _ in told(turn))
        for turn in dialogue.turns:
            own = turn.source in OWN
            table = self.intents if turn.role == "user" else self.states
            name = _intent(turn) if turn.role == "user" else turn.state
            for share in (self.own, table.setdefault(name, Share())):
                share.turns += 1
                share.own += own
            self.completion_tokens += turn.completion_tokens
            self.prompt_tokens += turn.prompt_tokens
            self.cached_tokens += turn.cached_tokens
            self.managed_tokens += turn.managed_tokens


def _intent(turn: Turn) -> str:
    return turn.intent or ("(unnamed)" if turn.edge >= 0 else "(no edge)")


def summarize(dialogues: Iterable[Dialogue]) -> Summary:
    """Return the figures of dialogues."""
    summary = Summary()
    for dialogue in dialogues:
        summary.add(dialogue)
    return summary


def lines(summary: Summary, by_name: bool = True) -> list[str]:
    """Return the summary as lines of text."""
    if not summary.dialogues:
        return ["no dialogues"]
    stops = ", ".join(f"{count} {reason}" for reason, count in summary.stops.most_common())
    out = [
        f"{summary.dialogues} dialogues ({stops}), {summary.turns} turns, "
        f"{summary.turns / summary.dialogues:.1f} a dialogue",
        f"the model's own words: {summary.own.share:.1%} of turns; the rest are references",
    ]
    for name, count in summary.traits.items():
        planned, shown = (n / summary.dialogues for n in (count.planned, count.dialogues))
        out.append(
            f"trait {name}: planned in {planned:.1%} of dialogues, acted in {shown:.1%}; "
            f"on {count.turns} of {count.told} turns"
        )
    if summary.prompt_tokens:
        out.append(
            f"tokens: {summary.completion_tokens} written, {summary.prompt_tokens} read "
            f"({summary.cached_tokens / summary.prompt_tokens:.0%} from the prefix cache)"
        )
    if summary.managed_tokens:
        out.append(f"the manager: {summary.managed_tokens} tokens written besides")
    if by_name:
        for title, table in (("intent", summary.intents), ("state", summary.states)):
            out.append(f"own words by {title}:")
            for name, share in sorted(table.items(), key=lambda item: item[1].share):
                out.append(f"  {share.share:6.0%}  {name} ({share.own}/{share.turns})")
    return out
