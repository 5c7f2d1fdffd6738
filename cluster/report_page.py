"""The report's page: plain data in, one self-contained HTML file out.

Invariants: nothing is loaded from anywhere (images are data URIs; the page's own policy forbids
the rest); whatever a model or a file said is escaped by the template, and no script but the page's
own runs, known by its digest.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

TEMPLATE, SCRIPT = "report.html.jinja", "report.js"


@dataclass(frozen=True, slots=True)
class Table:
    """A table; each row's first cell is its header.

    Attributes:
        folded: shown only when asked for.
        words: the columns after the first hold words, not figures.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    folded: bool = False
    words: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure, once for the page (SVG) and once for a file (PNG).

    Attributes:
        name: of the file, without its ending.
        alt: what the figure says, for who does not see it.
        wide: may be looked at in its full size, by scrolling.
    """

    name: str
    caption: str
    alt: str
    png: bytes
    svg: bytes
    wide: bool = False

    @property
    def source(self) -> str:
        """The SVG as a data URI."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report; `missing` says why there is none, `command` what makes it."""

    id: str
    title: str
    text: str = ""
    missing: str = ""
    command: str = ""
    warning: str = ""
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure at a glance."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReadTurn:
    """One turn of a dialogue to read.

    Attributes:
        margin: its number, and the intent or the state.
        source: who worded it: model, repair, reference, person.
        findings: what curation found wrong with it.
        rejected: candidates that failed the checks.
    """

    margin: str
    speaker: str
    role: str
    text: str
    source: str
    notes: Sequence[str] = ()
    findings: Sequence[str] = ()
    rejected: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """One dialogue to read.

    Attributes:
        kept: what curation decided; None where it has not looked at it.
        verdict: the same in words.
    """

    index: int
    title: str
    kept: bool | None
    verdict: str
    facts: Sequence[tuple[str, str]]
    findings: Sequence[str]
    turns: Sequence[ReadTurn]


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page shows."""

    title: str
    subtitle: str
    made: str
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    readings: Sequence[Reading]


def render(page: Page) -> str:
    """Return the page as HTML; every text in it is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cluster", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = environment.get_template(SCRIPT).render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    template = environment.get_template(TEMPLATE)
    return template.render(page=page, script=script, script_digest=digest)
