"""What the processes of a run cost: CPU seconds and memory, by kind, seen from outside.

Invariants: a process that has ended keeps the CPU that it was last seen with, so that sums never
fall; nothing is asked of the processes themselves, so that looking costs them nothing.
"""

from __future__ import annotations

import bisect
import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

KINDS = {
    "ray::WalkerActor": "walkers",
    "ray::SinkActor": "sinks",
    "ray::LedgerActor": "ledger",
    "ray::RetrieverActor": "retrievers",
    "ray::ReplicaHost": "replicas",
    "ray::ReplicaActor": "replicas",
}
"""By how the command line of an actor's process begins."""

SERVERS = {"/raylet": "raylet", "/gcs_server": "GCS"}
"""Ray's own, by how their program's path ends. The raylet holds the object store's memory."""

DRIVER, RAY = "driver", "Ray"
"""The latter is all else that Ray starts: agents, monitors, workers that wait."""


def kind_of(command: str) -> str:
    """Return the kind of a run's process, but for its driver, by its command line."""
    program = command.partition(" ")[0]
    for mark, kind in KINDS.items():
        if command.startswith(mark):
            return kind
    return next((kind for mark, kind in SERVERS.items() if program.endswith(mark)), RAY)


@dataclass(frozen=True, slots=True)
class Sample:
    """All processes at one time.

    Attributes:
        at: seconds since the epoch.
        cpu: seconds used since the start, by kind.
        memory: MiB, by kind: the largest process's own pages (USS), and those of all together.
        count: processes alive, by kind.
    """

    at: float
    cpu: Mapping[str, float]
    memory: Mapping[str, tuple[float, float]]
    count: Mapping[str, int]


@dataclass(slots=True)
class Costs:
    """Samples, in their order."""

    samples: list[Sample] = field(default_factory=list)

    def cpu(self, first: float, last: float) -> dict[str, float]:
        """Return the CPU seconds between two times, by kind; 0 where there are no samples."""
        kinds = self.samples[-1].cpu if self.samples else {}
        return {kind: self._cpu_at(kind, last) - self._cpu_at(kind, first) for kind in kinds}

    def _cpu_at(self, kind: str, at: float) -> float:
        """Return what a kind had used at a time, between samples by the straight line."""
        place = bisect.bisect_left([sample.at for sample in self.samples], at)
        if place == len(self.samples):
            return self.samples[-1].cpu.get(kind, 0.0)
        after = self.samples[place]
        if place == 0:
            return after.cpu.get(kind, 0.0)
        before = self.samples[place - 1]
        share = (at - before.at) / (after.at - before.at)
        low, high = before.cpu.get(kind, 0.0), after.cpu.get(kind, 0.0)
        return low + share * (high - low)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the least-squares slope of (x, y) points; 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0


@contextlib.contextmanager
def watched(driver: int, interval_s: float = 1.0, memory: bool = False) -> Iterator[Costs]:
    """Sample a driver's process and all that it has started, from a thread, until the end.

    Args:
        driver: the number of its process.
        memory: read the pages, too, which takes the kernel some milliseconds a process.
    """
    costs, ended, seen = Costs(), threading.Event(), dict[tuple[int, float], tuple[str, float]]()

    def look() -> None:
        while not ended.wait(interval_s):
            costs.samples.append(_sample(driver, seen, memory))

    thread = threading.Thread(target=look, name="process-costs", daemon=True)
    thread.start()
    try:
        yield costs
    finally:
        ended.set()
        thread.join()


def _sample(driver: int, seen: dict[tuple[int, float], tuple[str, float]], memory: bool) -> Sample:
    pages: dict[str, list[float]] = {}
    for process in _family(driver):
        with contextlib.suppress(psutil.Error):
            times, command = process.cpu_times(), " ".join(process.cmdline())
            if not command:  # it has ended, and nobody has asked how: its name went first
                continue
            kind = DRIVER if process.pid == driver else kind_of(command)
            key = (process.pid, process.create_time())
            seen[key] = (kind, times.user + times.system)
            own = process.memory_full_info().uss / 2**20 if memory else 0.0
            pages.setdefault(kind, []).append(own)
    cpu: dict[str, float] = {}
    for kind, seconds in seen.values():
        cpu[kind] = cpu.get(kind, 0.0) + seconds
    return Sample(
        at=time.time(),
        cpu=cpu,
        memory={kind: (max(own), sum(own)) for kind, own in pages.items()},
        count={kind: len(own) for kind, own in pages.items()},
    )


def _family(driver: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(driver)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []
