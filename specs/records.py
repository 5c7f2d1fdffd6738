"""What a dialogue is on disk: the Arrow schemas, and the frozen records behind them.

Invariants: the schema is declared here and nowhere else; its version stands in each file's
metadata; readers always pass the schema (pyarrow drops nested fields that a first file lacks).
JSON is kept as plain strings, so that every reader of Parquet can take a row as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = "1"

Source = Literal["model", "repair", "reference", "person"]


class StopReason(StrEnum):
    """Why a dialogue stopped. Only `ENDED` is a success.

    Of free talk alone: `CLOSED` (somebody took their leave before an end state), `LOOP` (the agent
    came back to one point again and again) and `OUT_OF_ROLE` (a side spoke as the other). `GAVE_UP`
    is the user's doing, by a trait of that name.
    """

    ENDED = "ended"
    TURN_LIMIT = "turn_limit"
    NO_EDGE = "no_edge"
    CLOSED = "closed"
    LOOP = "loop"
    OUT_OF_ROLE = "out_of_role"
    GAVE_UP = "gave_up"
    NO_WORDS = "no_words"
    UNPARSED = "unparsed"
    OVERFLOW = "overflow"
    REFUSED = "refused"
    ERROR = "error"

    @property
    def may_go_otherwise(self) -> bool:
        """Whether the same plan may well come to an end on another attempt, with other seeds.

        What the models said is then to blame, or somebody who was asked. Not `OVERFLOW`: plan and
        window make the prompt too long. `TURN_LIMIT`, `NO_EDGE`, `CLOSED`, `LOOP`, `OUT_OF_ROLE`
        and `GAVE_UP` are how a talk went, and no failures: playing them again until they end would
        only bend the data.
        """
        return self in (self.NO_WORDS, self.UNPARSED, self.REFUSED, self.ERROR)


LUCKLESS = frozenset({StopReason.NO_WORDS, StopReason.UNPARSED})
"""Failures of a dialogue's own doing that other words of the same model may mend."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check on one utterance; `value` is its measure where it has one."""

    name: str
    value: float | None
    passed: bool

    def __reduce__(self) -> tuple[Any, ...]:
        return CheckResult, (self.name, self.value, self.passed)  # quicker, as with turns


@dataclass(frozen=True, slots=True)
class PathStep:
    """One edge that was taken; `intent` is empty for an edge without a name, or a `next` move."""

    from_: str
    intent: str
    to: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance of one side, with what it was made from and how it came about.

    Attributes:
        edge: the number of the edge taken (user turns), else -1.
        slots, reply, memory, call: JSON values (`memory` after the turn; `call` is
            {"tool", "arguments"} or None).
        result_ids, result_scores: of a `search` call; `result` holds another tool's result.
        sampling: JSON of the settings that the words were drawn with.
        prompt_digest: of the exact prompt, which is rendered again from the record when somebody
            wants to read it (it would be the larger part of every row).
    """

    index: int
    role: Literal["user", "agent"]
    text: str
    state: str = ""
    intent: str = ""
    edge: int = -1
    slots: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] | None = None
    result_ids: tuple[str, ...] = ()
    result_scores: tuple[float, ...] = ()
    result: Any = None
    reply: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    source: Source = "model"
    checks: tuple[CheckResult, ...] = ()
    rejected: tuple[str, ...] = ()
    routing: Any = None
    seed: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    prompt_digest: str = ""
    model: str = ""
    adapter: str = ""
    replica: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        # Every turn travels to a sink; as pickle does it by itself, field by field in Python, that
        # is a tenth of a walker's work.
        return Turn, _turn_values(self)

    @property
    def managed_tokens(self) -> int:
        """Tokens that a manager wrote about it: they are no part of `completion_tokens`."""
        return int((self.routing or {}).get("tokens", 0))


_turn_values = attrgetter(*Turn.__slots__)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A plan, the turns that came of it, and why it stopped.

    Attributes:
        traits: what the plan's user was to be like (`specs.traits`); the turns' checks of the same
            names say where it showed.
    """

    run: str
    round: int
    arm: str
    walk_id: str
    index: int
    seed: int
    domain: str
    domain_digest: str
    policy: str
    persona_id: str
    persona: str
    goal: str
    doc_ids: tuple[str, ...]
    documents: tuple[tuple[str, str], ...]
    path: tuple[PathStep, ...]
    stop_reason: StopReason
    error: str
    attempt: int
    subgoals_reached: tuple[str, ...]
    node: str
    started_at: datetime
    ended_at: datetime
    turns: tuple[Turn, ...]
    traits: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it ended in an end state."""
        return self.stop_reason is StopReason.ENDED


_JSON_FIELDS = ("slots", "call", "result", "reply", "memory", "routing", "sampling")


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)


def dump_json(value: Any) -> str:
    """Return JSON text: compact, keys in their order, any script as it is."""
    return _ENCODER.encode(value)


def turn_row(turn: Turn) -> dict[str, Any]:
    """Return a turn as a row of the turns' struct."""
    row = {name: getattr(turn, name) for name in Turn.__slots__}
    for name in _JSON_FIELDS:
        row[name] = dump_json(row[name])
    row["checks"] = [
        {"name": one.name, "value": one.value, "passed": one.passed} for one in turn.checks
    ]
    for name in ("result_ids", "result_scores", "rejected"):
        row[name] = list(row[name])
    return row


def turn_from_row(row: Mapping[str, Any]) -> Turn:
    """Return the turn of a row; the inverse of `turn_row`."""
    values = dict(row)
    for name in _JSON_FIELDS:
        values[name] = json.loads(values[name])
    values["checks"] = tuple(CheckResult(**check) for check in values["checks"])
    for name in ("result_ids", "result_scores", "rejected"):
        values[name] = tuple(values[name])
    return Turn(**values)


def dialogue_row(dialogue: Dialogue) -> dict[str, Any]:
    """Return a dialogue as a row of `dialogue_schema()`."""
    row = {name: getattr(dialogue, name) for name in Dialogue.__slots__}
    row["stop_reason"] = dialogue.stop_reason.value
    row["doc_ids"] = list(dialogue.doc_ids)
    for name in ("subgoals_reached", "traits"):
        row[name] = list(row[name])
    row["documents"] = [{"id": id_, "json": text} for id_, text in dialogue.documents]
    row["path"] = [{"from": s.from_, "intent": s.intent, "to": s.to} for s in dialogue.path]
    row["turns"] = [turn_row(turn) for turn in dialogue.turns]
    return row


def dialogue_from_row(row: Mapping[str, Any]) -> Dialogue:
    """Return the dialogue of a row; the inverse of `dialogue_row`."""
    values = dict(row)
    values["stop_reason"] = StopReason(values["stop_reason"])
    values["doc_ids"] = tuple(values["doc_ids"])
    values["subgoals_reached"] = tuple(values["subgoals_reached"])
    values["traits"] = tuple(values.get("traits") or ())  # rows from before there were any
    values["documents"] = tuple((d["id"], d["json"]) for d in values["documents"])
    values["path"] = tuple(PathStep(s["from"], s["intent"], s["to"]) for s in values["path"])
    values["turns"] = tuple(turn_from_row(turn) for turn in values["turns"])
    return Dialogue(**values)


@cache
def turn_type() -> pa.StructType:
    """Return the Arrow type of one turn."""
    import pyarrow as pa

    check = pa.struct([("name", pa.string()), ("value", pa.float64()), ("passed", pa.bool_())])
    kinds = {
        int: pa.int32(),
        "text": pa.string(),
        "texts": pa.list_(pa.string()),
        "scores": pa.list_(pa.float32()),
        "seconds": pa.float32(),
    }
    fields: Sequence[tuple[str, Any]] = [
        ("index", int), ("role", "text"), ("text", "text"), ("state", "text"),
        ("intent", "text"), ("edge", int), ("slots", "text"), ("call", "text"),
        ("result_ids", "texts"), ("result_scores", "scores"), ("result", "text"),
        ("reply", "text"), ("memory", "text"), ("source", "text"),
    ]  # fmt: skip
    rest: Sequence[tuple[str, Any]] = [
        ("rejected", "texts"), ("routing", "text"), ("sampling", "text"),
        ("prompt_digest", "text"), ("model", "text"), ("adapter", "text"),
        ("replica", "text"), ("finish_reason", "text"), ("prompt_tokens", int),
        ("cached_tokens", int), ("completion_tokens", int), ("queue_s", "seconds"),
        ("prefill_s", "seconds"), ("decode_s", "seconds"),
    ]  # fmt: skip
    arrow = [pa.field(name, kinds[kind]) for name, kind in fields]
    arrow += [pa.field("checks", pa.list_(check)), pa.field("seed", pa.int64())]
    arrow += [pa.field(name, kinds[kind]) for name, kind in rest]
    return pa.struct(arrow)


@cache
def dialogue_schema() -> pa.Schema:
    """Return the schema of `dialogues/part-*.parquet`, one row a dialogue."""
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    document = pa.struct([("id", pa.string()), ("json", pa.string())])
    step = pa.struct([("from", pa.string()), ("intent", pa.string()), ("to", pa.string())])
    return pa.schema(
        [
            ("run", pa.string()), ("round", pa.int32()), ("arm", pa.string()),
            ("walk_id", pa.string()), ("index", pa.int64()), ("seed", pa.int64()),
            ("domain", pa.string()), ("domain_digest", pa.string()), ("policy", pa.string()),
            ("persona_id", pa.string()), ("persona", pa.string()), ("goal", pa.string()),
            ("doc_ids", pa.list_(pa.string())), ("documents", pa.list_(document)),
            ("path", pa.list_(step)), ("stop_reason", pa.string()), ("error", pa.string()),
            ("attempt", pa.int32()), ("subgoals_reached", pa.list_(pa.string())),
            ("node", pa.string()), ("started_at", moment), ("ended_at", moment),
            ("turns", pa.list_(turn_type())), ("traits", pa.list_(pa.string())),
        ],
        metadata={"duologue.schema": "dialogues", "duologue.schema_version": SCHEMA_VERSION},
    )  # fmt: skip


@cache
def log_schema() -> pa.Schema:
    """Return the schema of the turn log: one row a turn, or a dialogue's end.

    `kind` is `turn` (`body` is the JSON of `turn_row`) or `end` (`body` is the JSON of the
    dialogue's row without its turns; times in ISO 8601).
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("index", pa.int64()), ("walk_id", pa.string()), ("epoch", pa.int64()),
            ("turn", pa.int32()), ("kind", pa.string()), ("body", pa.string()),
        ],
        metadata={"duologue.schema": "log", "duologue.schema_version": SCHEMA_VERSION},
    )  # fmt: skip


@cache
def curated_schema() -> pa.Schema:
    """Return the schema of `curated/{train,validation,test}.parquet`, one row a dialogue.

    `messages` are those of `specs.agent_format`; `train` says whether loss falls on one. The
    files' metadata holds `duologue.agent` (JSON: the intents, their slots' types, the tools).
    """
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("train", pa.bool_())])
    step = pa.struct([("from", pa.string()), ("intent", pa.string()), ("to", pa.string())])
    return pa.schema(
        [
            ("walk_id", pa.string()), ("messages", pa.list_(message)),
            ("path", pa.list_(step)), ("doc_ids", pa.list_(pa.string())),
        ],
        metadata={"duologue.schema": "curated", "duologue.schema_version": SCHEMA_VERSION},
    )  # fmt: skip


def quality_schema(measures: Sequence[str] = ()) -> pa.Schema:
    """Return the schema of `quality/part-*.parquet`, one row a dialogue.

    Each measure is a column of its own (null where a dialogue has no such figure). `findings` are
    the dialogue's inconsistencies. `verdicts` has one entry for each filter of the run file, in
    their order; `kept` is null where a filter was not asked, since one before had dropped the
    dialogue. `document` is the seed document's id; `split` is empty for what was not kept.

    Args:
        measures: their names; a reader that needs none of them may leave them out.
    """
    import pyarrow as pa

    finding = pa.struct([("kind", pa.string()), ("turn", pa.int32()), ("detail", pa.string())])
    verdict = pa.struct([("filter", pa.string()), ("kept", pa.bool_()), ("reason", pa.string())])
    return pa.schema(
        [
            ("walk_id", pa.string()), ("index", pa.int64()), ("stop_reason", pa.string()),
            ("document", pa.string()), ("kept", pa.bool_()), ("split", pa.string()),
            ("verdicts", pa.list_(verdict)), ("findings", pa.list_(finding)),
            *((name, pa.float64()) for name in measures),
        ],
        metadata={"duologue.schema": "quality", "duologue.schema_version": SCHEMA_VERSION},
    )  # fmt: skip


@cache
def preference_schema() -> pa.Schema:
    """Return the schema of `curated/preference.parquet`: one row a rejected candidate.

    `prompt` are the messages before; `chosen` and `rejected` are what the agent wrote next, and
    what it might have written (`specs.agent_format`).
    """
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema(
        [
            ("walk_id", pa.string()), ("turn", pa.int32()), ("prompt", pa.list_(message)),
            ("chosen", pa.string()), ("rejected", pa.string()),
        ],
        metadata={"duologue.schema": "preference", "duologue.schema_version": SCHEMA_VERSION},
    )  # fmt: skip


@cache
def predictions_schema() -> pa.Schema:
    """Return the schema of `evaluation/predictions-*.parquet`: one row a piece of a test dialogue.

    `turn` is which of the user's turns the piece answers, from 1 (0: an opening); `correct` is null
    for an answer, and the four measures after it are of answers alone.
    """
    import pyarrow as pa

    return pa.schema(
        [
            ("walk_id", pa.string()), ("message", pa.int32()), ("turn", pa.int32()),
            ("kind", pa.string()), ("gold", pa.string()), ("predicted", pa.string()),
            ("finish_reason", pa.string()), ("correct", pa.bool_()), ("rouge_l", pa.float64()),
            ("similarity", pa.float64()), ("grounded", pa.float64()), ("rating", pa.float64()),
        ],
        metadata={"duologue.schema": "predictions", "duologue.schema_version": SCHEMA_VERSION},
    )  # fmt: skip
