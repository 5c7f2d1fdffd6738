"""What Ray's dashboard and Prometheus see of a run (Ray puts `ray_` before each name).

Invariants: an actor counts for itself, and every `RECORD_S` seconds tells Ray what has come to its
counters since: a record takes Ray 7 microseconds, and a walker says thousands of turns a second. A
process without Ray records nothing. Histograms are counters by upper bound (`le`), as Prometheus
itself keeps them: Ray's own take a record for each turn, and make up the sum from the bounds.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from actors.laps import BOUNDS, COUNTED, PHASES, WHOLE

if TYPE_CHECKING:
    from actors.retrieval.retriever import RetrieverStats
    from actors.sink_messages import SinkStats
    from actors.walker import WalkerStats
    from specs.engine import EngineStats

T = TypeVar("T")

RECORD_S = 2.0
"""From one record of an actor's counters to the next."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        tags: beside those of the actor (`WHO`), which all have.
    """

    kind: Literal["total", "now"]
    description: str
    tags: tuple[str, ...] = ()


WHO = ("job", "actor")
"""The tags of every metric: Ray's id of the job, and the name of the actor that recorded it."""

_ENGINE = ("engine",)

METRICS = {
    "duologue_turns_total": Metric(
        "total", "Turns said, by role and by who worded them.", ("role", "source")
    ),
    "duologue_dialogues_total": Metric(
        "total", "Dialogues that are durable, by why they stopped.", ("stop_reason",)
    ),
    "duologue_dialogues_alive": Metric("now", "Dialogues that a walker plays at once."),
    "duologue_dialogues_given_back_total": Metric(
        "total", "Leases given back because an engine, the store or a sink failed."
    ),
    "duologue_turn_seconds_total": Metric(
        "total",
        "Seconds of all turns together, by what they went into; a turn's are those of all phases.",
        ("role", "phase"),
    ),
    "duologue_turn_seconds_bucket_total": Metric(
        "total",
        "Turns that took no longer than `le` seconds: as a whole, or in one phase.",
        ("role", "phase", "le"),
    ),
    "duologue_retries_total": Metric(
        "total",
        "Requests made again: for more candidates, for a repair, or sent to an engine again.",
        ("why",),
    ),
    "duologue_event_loop_lag_seconds": Metric("now", "How late a walker's event loop is."),
    "duologue_walker_core_share": Metric(
        "now", "What a walker's event loop has of a core; 1 is all that it can have."
    ),
    "duologue_prompt_tokens_total": Metric("total", "Tokens read.", _ENGINE),
    "duologue_cached_tokens_total": Metric(
        "total", "Tokens of these that were in the prefix cache.", _ENGINE
    ),
    "duologue_completion_tokens_total": Metric("total", "Tokens written.", _ENGINE),
    "duologue_requests_total": Metric("total", "Requests answered.", (*_ENGINE, "outcome")),
    "duologue_request_seconds_total": Metric(
        "total", "Seconds of all answers together, by phase.", (*_ENGINE, "phase")
    ),
    "duologue_running": Metric("now", "Requests that run.", _ENGINE),
    "duologue_waiting": Metric("now", "Requests that wait for a place.", _ENGINE),
    "duologue_admission_limit": Metric("now", "Candidates that may run at once.", _ENGINE),
    "duologue_kv_cache_use": Metric("now", "Share of the KV cache that is in use.", _ENGINE),
    "duologue_preemptions_total": Metric(
        "total", "Requests put out of the KV cache for others.", _ENGINE
    ),
    "duologue_retriever_texts_total": Metric("total", "Texts that were embedded or looked up."),
    "duologue_retriever_searches_total": Metric("total", "Searches of documents."),
    "duologue_retriever_busy_seconds_total": Metric("total", "Seconds that its thread worked."),
    "duologue_retriever_waiting": Metric("now", "Calls that wait for its thread."),
    "duologue_sink_rows_total": Metric("total", "Dialogues written into parts."),
    "duologue_sink_bytes_total": Metric(
        "total", "Bytes of log and parts that were written, before compression."
    ),
    "duologue_sink_log_delay_seconds": Metric(
        "now", "How long the oldest of the turns logged last had waited for that."
    ),
    "duologue_sink_open_dialogues": Metric("now", "Dialogues in progress that a sink knows."),
    "duologue_store_outages_total": Metric("total", "How often the store could not be written."),
    "duologue_store_outage_seconds": Metric("now", "For how long it cannot be written now."),
}
"""All metrics, by name."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a metric shows now; of a total: since the actor's start."""

    name: str
    value: float
    tags: tuple[str, ...] = ()


def walker_readings(stats: WalkerStats) -> Iterator[Reading]:
    """Yield what is told of a walker."""
    for (role, source), count in stats.said.items():
        yield Reading("duologue_turns_total", count, (role, source))
    for reason, count in stats.stops.items():
        yield Reading("duologue_dialogues_total", count, (reason,))
    yield Reading("duologue_dialogues_alive", stats.alive)
    yield Reading("duologue_dialogues_given_back_total", stats.given_back)
    for role, laps in stats.laps.items():
        laps = laps.summed()
        for phase, seconds in zip(PHASES, laps.seconds, strict=True):
            yield Reading("duologue_turn_seconds_total", seconds, (role, phase))
        for phase in (WHOLE, *COUNTED):
            for bound, count in zip((*BOUNDS, "+Inf"), laps.at_most(phase), strict=True):
                tags = (role, phase, str(bound))
                yield Reading("duologue_turn_seconds_bucket_total", count, tags)
    for why, count in stats.retries.items():
        yield Reading("duologue_retries_total", count, (why,))
    yield Reading("duologue_event_loop_lag_seconds", stats.lag_s)
    if stats.played_s > 0:
        yield Reading("duologue_walker_core_share", stats.loop_s / stats.played_s)


def engine_readings(engine: str, stats: EngineStats) -> Iterator[Reading]:
    """Yield what is told of a replica of an engine."""
    tags = (engine,)
    yield Reading("duologue_prompt_tokens_total", stats.prompt_tokens, tags)
    yield Reading("duologue_cached_tokens_total", stats.cached_tokens, tags)
    yield Reading("duologue_completion_tokens_total", stats.completion_tokens, tags)
    yield Reading("duologue_requests_total", stats.finished, (engine, "answered"))
    yield Reading("duologue_requests_total", stats.failed - stats.overdue, (engine, "failed"))
    yield Reading("duologue_requests_total", stats.overdue, (engine, "overdue"))
    for phase in ("queue", "prefill", "decode"):
        seconds = getattr(stats, f"{phase}_s")
        yield Reading("duologue_request_seconds_total", seconds, (engine, phase))
    yield Reading("duologue_running", stats.running, tags)
    yield Reading("duologue_waiting", stats.waiting, tags)
    if stats.limit:
        yield Reading("duologue_admission_limit", stats.limit, tags)
    yield Reading("duologue_kv_cache_use", stats.kv_cache_use, tags)
    yield Reading("duologue_preemptions_total", stats.preemptions, tags)


def retriever_readings(stats: RetrieverStats) -> Iterator[Reading]:
    """Yield what is told of a retriever."""
    yield Reading("duologue_retriever_texts_total", stats.texts)
    yield Reading("duologue_retriever_searches_total", stats.searches)
    yield Reading("duologue_retriever_busy_seconds_total", stats.busy_s)
    yield Reading("duologue_retriever_waiting", stats.waiting)


def sink_readings(stats: SinkStats) -> Iterator[Reading]:
    """Yield what is told of a sink."""
    yield Reading("duologue_sink_rows_total", stats.rows)
    yield Reading("duologue_sink_bytes_total", stats.bytes)
    yield Reading("duologue_sink_log_delay_seconds", stats.log_delay_s)
    yield Reading("duologue_sink_open_dialogues", stats.open_dialogues)
    yield Reading("duologue_store_outages_total", stats.outages)
    yield Reading("duologue_store_outage_seconds", stats.outage_s)


@dataclass(slots=True)
class Recorder:
    """Tells Ray what readings say.

    Attributes:
        who: the values of WHO.
        make: makes Ray's metric of a name.
    """

    who: tuple[str, str]
    make: Callable[[str], Any]
    _made: dict[str, Any] = field(default_factory=dict)
    _told: dict[tuple[str, tuple[str, ...]], float] = field(default_factory=dict)

    def record(self, readings: Iterable[Reading]) -> None:
        """Tell what is so now, and what has come to the totals since the last time."""
        for reading in readings:
            metric = METRICS[reading.name]
            tags = dict(zip((*WHO, *metric.tags), (*self.who, *reading.tags), strict=True))
            if metric.kind == "now":  # Ray forgets what is not told again
                self._metric(reading.name).set(reading.value, tags)
            elif (more := self._more(reading)) > 0:
                self._metric(reading.name).inc(more, tags)

    def _more(self, reading: Reading) -> float:
        key = reading.name, reading.tags
        told, self._told[key] = self._told.get(key, 0.0), reading.value
        # A total that is lower than it was has begun anew.
        return reading.value - told if reading.value >= told else reading.value

    def _metric(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self.make(name)
        return self._made[name]


def ray_metric(name: str) -> Any:
    """Return Ray's metric of a name in METRICS."""
    from ray.util.metrics import Counter, Gauge

    metric = METRICS[name]
    kind = Counter if metric.kind == "total" else Gauge
    return kind(name, metric.description, (*WHO, *metric.tags))


def begin_recording(
    stats: Callable[[], Awaitable[T]], readings: Callable[[T], Iterable[Reading]]
) -> asyncio.Task[None] | None:
    """Record an actor's figures from now on; outside of Ray's actors do nothing.

    Args:
        stats: the actor's figures so far.
        readings: what the metrics say of them.

    Returns:
        The task, which its actor keeps.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.get_actor_id() is None:
        return None
    recorder = Recorder((str(context.get_job_id()), str(context.get_actor_name())), ray_metric)
    return asyncio.create_task(_record_on(recorder, stats, readings))


async def _record_on(
    recorder: Recorder,
    stats: Callable[[], Awaitable[T]],
    readings: Callable[[T], Iterable[Reading]],
) -> None:
    while True:
        recorder.record(readings(await stats()))
        await asyncio.sleep(RECORD_S)
