"""Two speeches of a user in one utterance."""

from __future__ import annotations

from itertools import product

from specs.domain import CheckCall, Example, Reference, Speech
from specs.expressions import Expression, Template

_MOST = "max_words"


def joined(one: Speech, other: Speech) -> Speech:
    """Return a speech that says what two say: the first, then the second.

    Neither has slots. It may have as many words as both together; all their other checks hold.
    """
    assert one.say is not None
    assert other.say is not None
    return Speech(
        say=_both(one.say, other.say),
        examples=tuple(
            Example({**a.with_, **b.with_}, _both(a.say, b.say), {}, a.where)
            for a, b in zip(one.examples, other.examples, strict=False)
        ),
        references=tuple(
            Reference(_both(a.say, b.say), {}, a.where)
            for a, b in product(one.references, other.references)
        ),
        checks=_checks(one.checks, other.checks),
    )


def _both(one: Template, other: Template) -> Template:
    return Template(f"{one.source.strip()} {other.source.strip()}", one.where)


def _checks(one: tuple[CheckCall, ...], other: tuple[CheckCall, ...]) -> tuple[CheckCall, ...]:
    every = {check.source: check for check in (*one, *other) if check.name != _MOST}
    limits = [[c.arguments[0] for c in checks if c.name == _MOST] for checks in (one, other)]
    if not all(limits):
        return tuple(every.values())
    source = f"{limits[0][0].source} + {limits[1][0].source}"
    where = limits[0][0].where
    most = CheckCall(_MOST, (Expression(source, where),), f"{_MOST}({source})", where)
    return (*every.values(), most)
