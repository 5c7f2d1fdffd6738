"""What is said to a sink and by it, and what its core gives out to be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from actors.turn_log import Ended, Entry
from specs.index_set import IndexSet
from specs.records import Turn

Stored = Literal["stored", "duplicate", "stale", "incomplete"]
"""`incomplete`: the sink was not told of all turns, and has to be given them."""


@dataclass(frozen=True, slots=True)
class SinkLimits:
    """When parts and log files are cut; bytes are before compression.

    Attributes:
        outage_s: how long the store may be out of reach before the sink gives up.
    """

    part_rows: int = 2000
    part_bytes: int = 64 * 1024 * 1024
    log_interval_s: float = 2.0
    log_bytes: int = 4 * 1024 * 1024
    outage_s: float = 600.0


@dataclass(frozen=True, slots=True)
class LoggedTurn:
    """A turn on its way into the log; `turn.index` counts from 0 without gaps."""

    index: int
    walk_id: str
    epoch: int
    turn: Turn


@dataclass(frozen=True, slots=True)
class Begun:
    """Whether a lease may be played, and the turns to go on from.

    Attributes:
        epoch: the latest that the sink knows of the index.
    """

    status: Literal["play", "stored", "stale"]
    turns: tuple[Turn, ...] = ()
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a sink found on disk; what was said in dialogues that go on, `begin` gives to each.

    Attributes:
        durable: the indices that need no playing, a bit each.
        warnings: what could not be read, in words for the user.
    """

    durable: IndexSet
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SinkStats:
    """What a sink holds now, and what it has written since its start.

    Attributes:
        rows: dialogues in the parts that it has written, and `bytes` of these and of the log,
            before compression.
        log_delay_s: how long the oldest of the turns that were logged last had waited for that.
        outage: what is wrong with the store, in words; empty when all is well.
        outage_s: how long that has been so.
        outages: that there have been.
    """

    stored: int
    parts: int
    waiting_rows: int
    waiting_bytes: int
    log_files: int
    open_dialogues: int
    rows: int = 0
    bytes: int = 0
    log_delay_s: float = 0.0
    outage: str = ""
    outage_s: float = 0.0
    outages: int = 0


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Entries to be written as one log file, and the dialogues that end with it."""

    ticket: int
    name: str
    entries: tuple[Entry, ...]
    ended: tuple[Ended, ...]


@dataclass(frozen=True, slots=True)
class PartBatch:
    """Rows to be written as one part."""

    name: str
    rows: tuple[pa.RecordBatch, ...]
    indices: tuple[int, ...]
