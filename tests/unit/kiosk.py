"""The tiny domain and dialogues of it, rehearsed once for all tests that replay records."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cluster.rehearsal import rehearse
from specs.domain import Domain
from specs.records import Dialogue, dialogue_from_row, dialogue_row
from tests.unit.tiny_domain import tiny

SEED = 3


@cache
def kiosk() -> Domain:
    with TemporaryDirectory() as folder:
        return tiny(Path(folder))


@cache
def played() -> tuple[Dialogue, ...]:
    rows = [dialogue_row(dialogue) for dialogue in rehearse(kiosk(), 30, 0, SEED)]
    return tuple(map(dialogue_from_row, rows))
