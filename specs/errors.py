"""The errors that a user sees, one type a boundary.

Everything that a user can mend is an `InputError`: it carries all findings at once and ends the
command with exit code 2. What fails while running is a `DuologueError` and ends it with code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """A place in a file; line and column count from 1, and 0 means the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return (
            f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with what a user gave: where, what, and what to do about it."""

    where: Where
    message: str
    hint: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        hint = f"\n    {self.hint}" if self.hint else ""
        return f"{self.where}: {self.severity}: {self.message}{hint}"


class DuologueError(Exception):
    """What went wrong and what to do, in words for the user; exit code 1."""


class InputError(DuologueError):
    """Input that cannot be used; exit code 2.

    Attributes:
        findings: all that is wrong, in the order of the files.
    """

    def __init__(self, findings: Iterable[Finding] | str, hint: str = "") -> None:
        if isinstance(findings, str):
            findings = [Finding(Where("input"), findings, hint)]
            text = str(findings[0].message) + (f"\n    {hint}" if hint else "")
        else:
            findings = sorted(findings, key=lambda finding: finding.where)
            text = "\n".join(str(finding) for finding in findings)
        super().__init__(text)
        self.findings: tuple[Finding, ...] = tuple(findings)

    def __reduce__(self) -> tuple[type[InputError], tuple[list[Finding]]]:
        # Ray carries errors between processes by pickle, which calls the constructor again.
        return InputError, (list(self.findings),)


class EngineError(DuologueError):
    """An engine cannot start or has died.

    Attributes:
        permanent: trying again cannot help (no such model, a window too small).
    """

    def __init__(self, message: str, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent

    def __reduce__(self) -> tuple[type[EngineError], tuple[str, bool]]:
        return EngineError, (str(self), self.permanent)


class ExpressionError(DuologueError):
    """A bare expression or a template of a domain that cannot be parsed or evaluated."""


class RetrievalError(DuologueError):
    """The document store cannot be built or does not answer."""


class Unavailable(DuologueError):
    """An engine or the document store did not answer: the dialogue stays owed, and is no row.

    Attributes:
        late: it is there, and took too long over this one.
    """

    def __init__(self, message: str, late: bool = False) -> None:
        super().__init__(message)
        self.late = late

    def __reduce__(self) -> tuple[type[Unavailable], tuple[str, bool]]:
        return Unavailable, (str(self), self.late)


class Superseded(DuologueError):
    """A lease ran out and another walker plays its dialogue: the late one leaves it alone.

    Attributes:
        seen: the later epoch that the sink knows; 0 where it did not say.
    """

    def __init__(self, message: str, seen: int = 0) -> None:
        super().__init__(message)
        self.seen = seen

    def __reduce__(self) -> tuple[type[Superseded], tuple[str, int]]:
        return Superseded, (str(self), self.seen)


_LONGEST_NAME = 80
_COMPARED = 500
"""Comparing takes the square of a name's length for each known one: neither grows without bound."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known name most like this one, or nothing."""
    if len(name) > _LONGEST_NAME:
        return ""
    names = [one for one in islice(known, _COMPARED) if len(one) <= _LONGEST_NAME]
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
