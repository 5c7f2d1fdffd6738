"""What a round learns from: its own train split, and a share of earlier rounds' train splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from specs.seeds import digest
from trainer.chat_file import ChatFile, Origin
from trainer.data import drawn
from trainer.evaluation import ChatDialogue


@dataclass(frozen=True, slots=True)
class Mixture:
    """Train splits that are learned from together, read anew each time.

    Attributes:
        earlier: train splits of earlier rounds, of which the dialogues named in `taken` count.
    """

    own: ChatFile
    earlier: tuple[ChatFile, ...] = ()
    taken: frozenset[str] = frozenset()

    def origins(self) -> Iterator[Origin]:
        """Yield where each dialogue comes from; see `ChatFile.origins`."""
        yield from self.own.origins()
        for file in self.earlier:
            yield from (one for one in file.origins() if one.walk_id in self.taken)

    def dialogues(self) -> Iterator[ChatDialogue]:
        """Yield the dialogues; see `ChatFile.dialogues`."""
        yield from self.own.dialogues()
        for file in self.earlier:
            yield from (one for one in file.dialogues() if one.walk_id in self.taken)

    def digests(self) -> dict[str, str]:
        """Return the digests of what is learned from; see `ChatFile.digest`."""
        found = {"train": self.own.digest()}
        if self.taken:
            files = (file.digest() for file in self.earlier)
            found["earlier"] = digest(*files, *sorted(self.taken))
        return found


def mix(
    own: ChatFile, earlier: Sequence[ChatFile], held: Iterable[ChatFile], share: float, seed: int
) -> Mixture:
    """Return a round's train split with as many earlier dialogues as make up a share of all.

    Args:
        earlier: train splits of earlier rounds.
        held: the splits that are held back now: no dialogue about a document of theirs is taken.
        share: the most of all dialogues that are earlier ones, in [0, 1).
        seed: which are drawn where there are more.

    Raises:
        InputError: a file breaks off.
    """
    if not earlier or not share:
        return Mixture(own)
    back = {one.document for file in held for one in file.origins()} - {""}
    ids = (one.walk_id for file in earlier for one in file.origins() if one.document not in back)
    most = int(share / (1 - share) * sum(1 for _ in own.origins()) + 1e-9)
    return Mixture(own, tuple(earlier), drawn(ids, most, seed))
