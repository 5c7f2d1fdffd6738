"""How the driver asks actors: every wait has a deadline, and errors come in words.

What is asked is idempotent, so a call whose actor has died is made again: Ray starts the actor anew
meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from specs.errors import DuologueError, EngineError, Unavailable

K = TypeVar("K")
Call = Callable[[], Any]

PAUSE_S = 0.2
"""Before a call is made again."""

DEATHS = 12
"""How often in a row an actor may die of what it is asked."""

DEAF_S = 30.0
"""A call may be lost with a node: after this long without an answer it is made beside the first."""


@dataclass(slots=True)
class Asking:
    """One idempotent call, made again until it is answered.

    Attributes:
        what: for messages.
        answer: once `answered`.
    """

    call: Call
    what: str
    answer: Any = None
    answered: bool = False
    refs: list[Any] = field(default_factory=list)
    due: float = 0.0
    deaths: int = 0

    def make(self) -> None:
        """Make the call, where it is time to."""
        now = time.monotonic()
        if self.answered or now < self.due:
            return
        self.due = now + DEAF_S
        try:
            self.refs.append(self.call())
        except RayError as error:
            self._died(error)

    def take(self, ref: Any) -> None:
        """Take what one of its references has brought.

        Raises:
            DuologueError: the call's own error, or its actor died again and again.
        """
        try:
            self.answer, self.answered = ray.get(ref), True
        except RayTaskError as error:
            if isinstance(error.cause, DuologueError) and not isinstance(error.cause, Unavailable):
                raise error.cause from None
            if not isinstance(error.cause, Unavailable):
                raise DuologueError(f"{self.what} failed: {error.cause!r}") from error
            self.refs.remove(ref)
        except RayError as error:
            self._died(error)
            self.refs.clear()  # all of them were of the process that has died: it dies once
        self.due = time.monotonic() + PAUSE_S

    def look(self) -> bool:
        """Say whether it is answered, without waiting; raises as `take`."""
        self.make()
        ready, _ = ray.wait(self.refs, timeout=0) if self.refs else ([], [])
        if ready and not self.answered:
            self.take(ready[0])
        return self.answered

    def _died(self, error: RayError) -> None:
        self.deaths += "restarting" not in str(error)
        if self.deaths > DEATHS:
            message = f"{self.what}: its process has ended {DEATHS} times: {error}"
            raise EngineError(message) from error


def ask(calls: Mapping[K, Call], seconds: float, what: str) -> dict[K, Any]:
    """Return what all calls answer.

    Args:
        calls: idempotent, by a name that messages use.
        what: all of them together, for messages.

    Raises:
        DuologueError: a call's own error; one of them was not answered within `seconds`; or its
            actor died again and again.
    """
    asked = {key: Asking(call, f"{what} ({key})") for key, call in calls.items()}
    ends = time.monotonic() + seconds
    while open_ := {key: one for key, one in asked.items() if not one.answered}:
        now = time.monotonic()
        if now >= ends:
            names = ", ".join(str(key) for key in open_)
            raise DuologueError(f"{what} did not answer within {seconds:g} s ({names})")
        for one in open_.values():
            one.make()
        refs = {ref: one for one in open_.values() for ref in one.refs}
        if not refs:
            time.sleep(PAUSE_S)
            continue
        ready, _ = ray.wait(list(refs), timeout=min(PAUSE_S, ends - now))
        for ref in ready:
            if ref in refs[ref].refs:
                refs[ref].take(ref)
    return {key: one.answer for key, one in asked.items()}


def ask_one(call: Call, seconds: float, what: str) -> Any:
    """Return what one call answers; as `ask`."""
    return ask({what: call}, seconds, what)[what]


def gather(calls: Mapping[K, Call], seconds: float) -> dict[K, Any]:
    """Return what each call answers within `seconds`; those that fail or are late are left out."""
    refs: dict[Any, K] = {}
    for key, call in calls.items():
        try:
            refs[call()] = key
        except RayError:
            continue
    if not refs:
        return {}
    ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=seconds)
    found = {}
    for ref in ready:
        try:
            found[refs[ref]] = ray.get(ref)
        except RayError:
            continue
    return found
