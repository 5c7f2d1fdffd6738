"""What was said, and what a candidate would have said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from specs.checks import together
from specs.records import CheckResult


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was said: the words, the slots (agent: the reply), and the rest of the turn's record."""

    text: str
    slots: Mapping[str, Any]
    record: Mapping[str, Any]

    def has(self, check: str) -> bool:
        """Whether a check of that name was made."""
        return any(one.name == check for one in self.record.get("checks", ()))

    def passed(self, check: str) -> bool:
        """Whether a check of that name was made, and passed."""
        return any(one.name == check and one.passed for one in self.record.get("checks", ()))

    def checked(self, check: CheckResult) -> Spoken:
        """Return it with one more check, in the place of one of its name."""
        before = (one for one in self.record.get("checks", ()) if one.name != check.name)
        checks = together([*before, check])
        return replace(self, record={**self.record, "checks": checks})


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate with its checks; `text` is what it says, or all of it when it did not parse."""

    text: str
    slots: Mapping[str, Any]
    checks: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)
