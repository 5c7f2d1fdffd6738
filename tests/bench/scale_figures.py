"""What a scaled run came to beside the perfect scheduler, and what that means for more GPUs."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.bench.perfect_scheduler import Places, Work, schedule, work_of
from tests.bench.scaled_run import Note, Played, Setting, faults_of

STEADY = (0.2, 0.6)
"""The share of all turns from which to which a run is steady: past the moment in which all begin at
once, and before the last ones have begun."""

ENGINE_7B = {"latency_s": [0.075, 0.125], "token_s": 0.034}
"""What a turn takes of a Llama-2-7B on one GPU of 80 GB with 64 sequences.

A decoding step reads the weights (13.5 GB) and the KV cache: 0.5 MiB a token (2 x 32 layers x 4096
x 2 bytes), so 64 sequences of 800 tokens are 26 GB. At 3.35 TB/s (H100) that is 12 ms at best, at
2.0 TB/s (A100) 20 ms; published runs come to 25 ms: vLLM's serving benchmark with Llama-3.1-8B and
all requests at once has a median inter-token latency of 25.4 ms (vllm-project/vllm pull 18566);
another H100 under 200 requests a second has 22.7 ms at its 90th percentile, 29 ms to the first
token in the median, and 193 ms at the 90th percentile (llm-d/llm-d-autoscaling pull 1025). So 25 ms
a step; 1.35 tokens a word, so 34 ms a word; 50 to 100 ms until the first token, with most of the
prompt in the prefix cache, and one step for the end of the turn.
"""

PLACES_7B = 64
"""Sequences that one replica decodes at once: more of that model's cache do not fit beside it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a run.

    Attributes:
        cpu_ms: milliseconds a turn, by kind of process.
        busy: share of an engine's places in use.
        stretch: how much longer turns held their places than was drawn: the simulation's own lag.
    """

    seconds: float
    turns: int
    cpu_ms: Mapping[str, float]
    busy: Mapping[str, float]
    stretch: float

    @property
    def turns_s(self) -> float:
        """Turns a second."""
        return self.turns / self.seconds


@dataclass(frozen=True, slots=True)
class Figures:
    """One run beside the perfect scheduler on the same draws.

    Attributes:
        perfect_turns_s: steady, of the perfect scheduler.
        perfect_busy: by engine, in its steady stretch.
        whole: the perfect scheduler's seconds divided by the run's; None where not all was played.
    """

    played: Played
    steady: Span
    perfect_turns_s: float
    perfect_busy: Mapping[str, float]
    whole: float | None

    @property
    def share(self) -> float:
        """Turns a second as a share of the perfect scheduler's."""
        return self.steady.turns_s / self.perfect_turns_s


def places_of(setting: Setting) -> dict[str, Places]:
    """Return the replicas of each engine as the perfect scheduler takes them."""
    return {
        name: [
            (speeds[number % len(speeds)] if (speeds := setting.speeds.get(name)) else 1.0,
             setting.places)
            for number in range(count)
        ]
        for name, count in setting.replicas.items()
    }  # fmt: skip


def figures(played: Played) -> Figures:
    """Return what a run came to."""
    setting = played.setting
    work = _work(played)
    if not played.complete:
        return _of_limited(played, work)
    perfect = schedule(work, places_of(setting), played.alive)
    turns = len(perfect.ends)
    first, last = (int(share * turns) for share in STEADY)
    at, to = perfect.ends[first], perfect.ends[last]
    return Figures(
        played,
        steady_span(played, first, last),
        (last - first) / (to - at),
        {name: perfect.busy(name, at, to) for name in setting.replicas},
        perfect.seconds / played.seconds,
    )


def _of_limited(played: Played, work: Sequence[Sequence[Work]]) -> Figures:
    """Return the figures of a run that was interrupted: the limit is its full engines' pace."""
    last = played.notes[-1].turns
    span = steady_span(played, int(0.4 * last), last)
    return Figures(played, span, full_turns_s(work, played.setting), {}, None)


def full_turns_s(work: Sequence[Sequence[Work]], setting: Setting) -> float:
    """Return the turns a second of engines whose places are all in use."""
    seconds: dict[str, float] = dict.fromkeys(setting.replicas, 0.0)
    for one in (one for said in work for one in said):
        seconds[one.engine] += one.seconds
    turns = sum(map(len, work))
    paces = {n: sum(speed * count for speed, count in of) for n, of in places_of(setting).items()}
    return min(paces[name] * turns / seconds[name] for name in seconds if seconds[name])


def steady_span(played: Played, first: int, last: int) -> Span:
    """Return the stretch of a run between two numbers of turns said."""
    notes, setting = played.notes, played.setting
    counts = [note.turns for note in notes]
    begin = notes[min(bisect.bisect_left(counts, first), len(notes) - 2)]
    end = notes[min(bisect.bisect_left(counts, last), len(notes) - 1)]
    turns, seconds = end.turns - begin.turns, end.at - begin.at
    cpu = played.costs.cpu(begin.at, end.at)
    used = {name: end.used[name] - begin.used[name] for name in setting.replicas}
    return Span(
        seconds=seconds,
        turns=turns,
        cpu_ms={kind: 1000 * used_s / max(1, turns) for kind, used_s in cpu.items()},
        busy={n: s / (seconds * setting.replicas[n] * setting.places) for n, s in used.items()},
        stretch=_stretch(begin, end),
    )


def _stretch(begin: Note, end: Note) -> float:
    used = sum(end.used[name] - begin.used[name] for name in end.used)
    drawn = sum(end.drawn[name] - begin.drawn[name] for name in end.drawn)
    return used / drawn if drawn else 1.0


KINDS = (
    "walkers", "replicas", "sinks", "ledger", "retrievers", "driver", "raylet", "GCS", "Ray"
)  # fmt: skip


def heading() -> str:
    """Return the first line of a table of figures."""
    kinds = "  ".join(f"{kind:>10}" for kind in KINDS)
    return (
        f"{'replicas x places':>17}  {'alive':>6}  {'walkers':>7}  {'dialogues':>9}  "
        f"{'turns/s':>8}  {'perfect':>8}  {'share':>6}  {'whole':>6}  {'busy':>5}  "
        f"{'stretch':>7}  CPU ms a turn: {kinds}  cores"
    )


def row(found: Figures) -> str:
    """Return one line of a table of figures."""
    played, steady, setting = found.played, found.steady, found.played.setting
    replicas = "+".join(map(str, setting.replicas.values()))
    busy = max(steady.busy.values())
    whole = "-" if found.whole is None else f"{found.whole:.3f}"
    kinds = "  ".join(f"{steady.cpu_ms.get(kind, 0.0):10.3f}" for kind in KINDS)
    cores = sum(steady.cpu_ms.values()) * steady.turns_s / 1000
    return (
        f"{f'{replicas} x {setting.places}':>17}  {played.alive:6}  {played.walkers:7}  "
        f"{len(played.dialogues):9}  {steady.turns_s:8.1f}  {found.perfect_turns_s:8.1f}  "
        f"{found.share:6.3f}  {whole:>6}  {busy:5.3f}  {steady.stretch:7.3f}  "
        f"{'':14} {kinds}  {cores:5.2f}"
    )


GPUS = (256, 10_000)
"""Of how many one wants to know."""

CORE = 0.7
"""How full a process's core may be before its event loop answers late."""


def projection(many: Figures, best: Figures) -> list[str]:
    """Return what more GPUs need, by what a turn costs here.

    Args:
        many: the run with the most replicas, where calls carry the fewest turns each.
        best: the run with the most turns a second, where they carry more.
    """
    turns = sum(len(dialogue.turns) for dialogue in best.played.dialogues)
    each = full_turns_s(_work(best.played), best.played.setting)
    each /= sum(best.played.setting.replicas.values()) * best.played.setting.places / PLACES_7B
    length = turns / len(best.played.dialogues)
    lines = [f"one replica of {PLACES_7B} places says {each:.0f} turns/s at most"]
    for gpus in GPUS:
        pace = gpus * each
        lines.append(f"{gpus} GPUs: {pace:.0f} turns/s, {pace / length:.0f} dialogues/s")
        for kind in ("walkers", "sinks", "retrievers"):
            low, high = (pace * one.steady.cpu_ms.get(kind, 0.0) / 1000 for one in (best, many))
            lines.append(f"  {kind}: {low:.0f} cores ({high:.0f} at the calls of the last row)")
        walkers = pace * best.steady.cpu_ms.get("walkers", 0.0) / 1000 / CORE
        # A walker asks it a few times a second, however many dialogues it plays.
        ledger = _cores(best, "ledger") * walkers / best.played.walkers
        full = "fits" if ledger < CORE else f"is full at {CORE / ledger * gpus:.0f} GPUs"
        lines.append(f"  ledger (one process): {ledger:.2f} cores, {full}")
        driver = _driver(many, best, gpus)
        full = "fits" if driver < CORE else f"is full at {CORE / driver * gpus:.0f} GPUs"
        lines.append(f"  driver (one process): {driver:.2f} cores, {full}")
        polls = walkers * gpus
        lines.append(
            f"  open polls: {walkers:.0f} walkers x {gpus} replicas = {polls:.0f}, each with "
            f"{pace / polls:.2f} turns a second"
        )
    return lines


def _driver(many: Figures, best: Figures, gpus: int) -> float:
    """Return the cores that the driver needs: what it costs grows with the replicas it asks."""
    points = sorted(
        (sum(one.played.setting.replicas.values()), _cores(one, "driver")) for one in (many, best)
    )
    (few, low), (most, high) = points
    each = (high - low) / (most - few) if most > few else 0.0
    return max(0.0, high + each * (gpus - most))


def _cores(found: Figures, kind: str) -> float:
    return found.steady.cpu_ms.get(kind, 0.0) * found.steady.turns_s / 1000


def _work(played: Played) -> list[list[Work]]:
    roles, faults = played.setting.roles(), faults_of(played.setting)
    return [work_of(dialogue, roles, faults) for dialogue in played.dialogues]
