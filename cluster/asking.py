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
class _Asked:
    call: Call
    what: str
    refs: list[Any] = field(default_factory=list)
    due: float = 0.0
    deaths: int = 0


def ask(calls: Mapping[K, Call], seconds: float, what: str) -> dict[K, Any]:
    """Return what all calls answer.

    Args:
        calls: idempotent, by a name that messages use.
        what: all of them together, for messages.

    Raises:
        DuologueError: a call's own error; one of them was not answered within `seconds`; or its
            actor died again and again.
    """
    open_ = {key: _Asked(call, f"{what} ({key})") for key, call in calls.items()}
    found: dict[K, Any] = {}
    ends = time.monotonic() + seconds
    while open_:
        now = time.monotonic()
        if now >= ends:
            names = ", ".join(str(key) for key in open_)
            raise DuologueError(f"{what} did not answer within {seconds:g} s ({names})")
        for asked in open_.values():
            if now >= asked.due:
                _make(asked, now)
        refs = {ref: key for key, asked in open_.items() for ref in asked.refs}
        if not refs:
            time.sleep(PAUSE_S)
            continue
        ready, _ = ray.wait(list(refs), timeout=min(PAUSE_S, ends - now))
        for ref in ready:
            key = refs[ref]
            if key in open_ and _answered(open_[key], ref, found, key):
                del open_[key]
    return found


def ask_one(call: Call, seconds: float, what: str) -> Any:
    """Return what one call answers; as `ask`."""
    return ask({what: call}, seconds, what)[what]


def _make(asked: _Asked, now: float) -> None:
    asked.due = now + DEAF_S
    try:
        asked.refs.append(asked.call())
    except RayError as error:
        _died(asked, error)


def _answered(asked: _Asked, ref: Any, found: dict[K, Any], key: K) -> bool:
    try:
        found[key] = ray.get(ref)
        return True
    except RayTaskError as error:
        if isinstance(error.cause, DuologueError) and not isinstance(error.cause, Unavailable):
            raise error.cause from None
        if not isinstance(error.cause, Unavailable):
            raise DuologueError(f"{asked.what} failed: {error.cause!r}") from error
    except RayError as error:
        _died(asked, error)
    asked.refs.remove(ref)
    asked.due = time.monotonic() + PAUSE_S
    return False


def _died(asked: _Asked, error: RayError) -> None:
    asked.deaths += "restarting" not in str(error)
    if asked.deaths > DEATHS:
        raise EngineError(f"{asked.what}: its process has ended {DEATHS} times: {error}") from error


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
