"""Which replica answers a dialogue: the least loaded one at first, then always the same."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence


class StickyRouter:
    """Sticky least-loaded routing.

    A dialogue keeps its replica, whose prefix cache knows it, until it is released or its replica's
    load is infinite (down) while another's is not. Ties go to the replica named first.
    """

    def __init__(self, replicas: Sequence[str]) -> None:
        if not replicas:
            raise ValueError("a router needs a replica")
        self._dialogues = dict.fromkeys(replicas, 0)
        self._places: dict[Hashable, str] = {}

    @property
    def dialogues(self) -> Mapping[str, int]:
        """How many dialogues each replica has."""
        return self._dialogues

    def route(self, dialogue: Hashable, loads: Mapping[str, float]) -> str:
        """Return the dialogue's replica.

        Args:
            dialogue: its key.
            loads: further load of each replica, in dialogues; infinite when it is down.
        """
        place = self._places.get(dialogue)
        if place is not None and loads.get(place, 0.0) < math.inf:
            return place
        best = min(self._dialogues, key=lambda name: self._dialogues[name] + loads.get(name, 0.0))
        if place is not None:
            if loads.get(best, 0.0) == math.inf:
                return place
            self._dialogues[place] -= 1
        self._places[dialogue] = best
        self._dialogues[best] += 1
        return best

    def release(self, dialogue: Hashable) -> None:
        """Forget a dialogue; unknown ones are ignored."""
        place = self._places.pop(dialogue, None)
        if place is not None:
            self._dialogues[place] -= 1
