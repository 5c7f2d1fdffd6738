"""The fence between a sink and its successor: who was killed but lives writes nothing more.

The process of a sink may outlive its end as the others see it: its node was cut off and taken for
dead, its driver was killed a moment ago, it was stopped and woke up. Each sink therefore writes its
token into a file of its own before it reads anything, and looks whether it still stands there
before a log file or a part of its own appears.

Invariants: of two sinks of one number, the one that opened last writes; a sink of an earlier start
of the run never opens after one of a later start, so that an old one cannot fight with the new; a
start with another number of sinks fences all of the numbers before.

On a disk no file appears behind a successor's back: it takes over, deletes what is half written
(`SinkCore.open`), and reads, in this order. A file whose writer looked in time was half written by
then: it has been renamed before it could be deleted, and is read, or it is gone, and its renaming
fails. What remains possible is an object store's copy, which stands for the renaming there: one
that had begun before the deletion may appear after the reading. A dialogue may then be there twice,
in that file and in a later part; readers take the first (`specs.parts`), and the next start of the
run tells of it. Nothing that was acknowledged is lost by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from specs.errors import DuologueError
from specs.parts import Folder, storage_error

OWNER = ".owner"

_NAME = re.compile(r"sink-\d+of(\d+)\.owner")


class Fenced(DuologueError):
    """Another sink has taken this one's place; it writes nothing more.

    Attributes:
        start: the start of the run to which that one belongs; 0 where that is not known.
    """

    def __init__(self, message: str, start: int = 0) -> None:
        super().__init__(message)
        self.start = start

    def __reduce__(self) -> tuple[type[Fenced], tuple[str, int]]:
        return Fenced, (str(self), self.start)


class Fence:
    """One sink's side of the fence; `start` counts the starts of the run (`RunFolder.open`)."""

    def __init__(self, log: Folder, number: int, sinks: int, token: str, start: int = 0) -> None:
        self._log, self._sinks = log, sinks
        self._name = f"sink-{number:03}of{sinks:03}{OWNER}"
        self._token, self.start = token, start

    def take(self) -> None:
        """Fence off whoever wrote here before.

        Raises:
            Fenced: a later start of the run writes here.
            DuologueError: the store is out of reach.
        """
        names = self._log.names("sink-", OWNER)
        if self._latest(names) > self.start:
            raise self._fenced(names)
        owner = {"start": self.start, "token": self._token}
        self._log.write_bytes(self._name, json.dumps(owner).encode())
        for name in names:
            match = _NAME.fullmatch(name)
            if match and int(match[1]) != self._sinks:
                self._log.delete(name)

    def check(self) -> None:
        """Do nothing while nobody has taken this sink's place; costs the reading of a small file.

        Raises:
            Fenced: somebody has.
            DuologueError: the store is out of reach.
        """
        if self._read(self._name)["token"] != self._token:
            raise self._fenced(self._log.names("sink-", OWNER))

    def leave(self) -> None:
        """Leave in good order: nothing is written after this."""
        if self._read(self._name)["token"] == self._token:
            self._log.delete(self._name)

    def _read(self, name: str) -> dict[str, Any]:
        nobody = {"start": 0, "token": ""}
        try:
            found = json.loads(self._log.read_bytes(name))
        except (FileNotFoundError, ValueError):
            return nobody
        except OSError as error:
            raise storage_error(error, self._log.file(name), "read") from error
        whole = isinstance(found, dict) and isinstance(found.get("start"), int)
        return {**nobody, **found} if whole else nobody

    def _latest(self, names: Sequence[str]) -> int:
        return max((int(self._read(name)["start"]) for name in names), default=0)

    def _fenced(self, names: Sequence[str]) -> Fenced:
        start = self._latest(names)
        later = f"a later start of this run (number {start})"
        who = later if start > self.start else "another sink"
        return Fenced(f"{self._log.path}: {who} writes here now; this one ends", start)
