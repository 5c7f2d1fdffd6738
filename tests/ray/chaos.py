"""A run on three raylets of which parts die at random, and what must hold at its end.

The driver is the real command in a process of its own; actors are killed by signal 9 in their
processes, raylets with all that they watch over, the driver like an actor. Nothing is told of it.

    python -m tests.ray.chaos --dialogues 2000 --seed 1       # the long form: some minutes
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from specs.loader import open_domain
from specs.parts import Folder, durable_indices, read_dialogues
from specs.plan import PlanSource
from specs.records import Dialogue, StopReason
from specs.replay import replay
from tests.ray.command import ROOT, environment
from tests.unit.durable_samples import indices_in

KINDS = ("user", "agent", "walker", "sink", "retriever", "ledger")

HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""A dead raylet is found within some two seconds and not within seventeen."""

NODE = {"num_cpus": 2}

RUN_FILE = """\
[run]
name = "chaos"
dialogues = {dialogues}
seed = {seed}
out = "{out}"
log_interval_s = 1.0
part_rows = 200
[domain]
path = "recipe"
[engines.user]
kind = "reference"
replicas = 2
max_running = 512
turn_deadline_s = 20
faults = {{ latency_s = [0.02, 0.2] }}
[engines.agent]
kind = "reference"
replicas = 2
max_running = 512
turn_deadline_s = 20
faults = {{ latency_s = [0.02, 0.2] }}
[roles]
user = "user"
agent = "agent"
[walkers]
count = 2
alive = {alive}
sinks = 2
retrievers = 2
[retrieval]
embedding = "lexical"
"""


@dataclass(frozen=True)
class Schedule:
    """What dies when; seconds between deaths, and how often the driver dies.

    Attributes:
        logged: parts of the turn log between two deaths, at least: on a machine that is too slow
            for the seconds nothing would ever be played.
    """

    dialogues: int
    seed: int
    alive: int = 48
    actor_s: float = 3.0
    raylet_s: float = 40.0
    logged: int = 0
    drivers: int = 5
    deadline_s: float = 1200.0


@dataclass
class Outcome:
    """What was done, and what is wrong at the end (nothing, if all is well)."""

    killed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    rows: int = 0
    successful: int = 0
    turns: int = 0
    seconds: float = 0.0
    said: str = ""

    def __str__(self) -> str:
        killed = ", ".join(f"{n} {kind}" for kind, n in sorted(self.killed.items()))
        return (
            f"{self.rows} dialogues, {self.successful} successful, {self.turns} turns in "
            f"{self.seconds:.0f} s; killed: {killed}; wrong: {self.wrong or 'nothing'}"
        )


class Driver:
    """The command, begun again after each of its deaths."""

    def __init__(self, run_file: Path, address: str, log: Path) -> None:
        self._command = (
            *(sys.executable, "-m", "cluster.cli", "generate", str(run_file)),
            *("--set", f"cluster.address={address}"),
        )
        self._log = log.open("ab")
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=environment(),
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def kill(self) -> None:
        """End it without a word, and begin again."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._log.write(b"== the driver was killed\n")
        self._log.flush()
        self.process = self._begin()


@contextlib.contextmanager
def raylets(head: Mapping[str, Any], *workers: Mapping[str, Any]) -> Iterator[Cluster]:
    """A cluster of raylets on this machine, joined by this process.

    Args:
        head, workers: what each of them has, as `ray.init` names it.
    """
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**head, "_system_config": HEALTH, "include_dashboard": False},
    )
    try:
        for worker in workers:
            cluster.add_node(**worker)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


class Chaos:
    """One run under a schedule."""

    def __init__(self, folder: Path, schedule: Schedule) -> None:
        self.folder, self.schedule = folder, schedule
        self.draw = random.Random(schedule.seed)
        self.outcome = Outcome()
        self.seen: dict[int, float] = {}  # every actor's process, by its time of birth
        self.log = folder / "said.txt"
        self.round = Folder.of(folder / "out" / "chaos" / "round-0")

    def run(self) -> Outcome:
        """Run it to its end; returns what came of it."""
        began = time.monotonic()
        with raylets(NODE, NODE, NODE) as cluster:
            driver = Driver(self._run_file(), cluster.address, self.log)
            try:
                self._until_done(cluster, driver, began)
            finally:
                if driver.process.poll() is None:
                    driver.process.kill()
                    driver.process.wait()
            self._nothing_stays()
        self.outcome.seconds = time.monotonic() - began
        self._look()
        self.outcome.said = self.log.read_text(errors="replace")
        return self.outcome

    def _run_file(self) -> Path:
        path = self.folder / "chaos.toml"
        s = self.schedule
        text = RUN_FILE.format(
            dialogues=s.dialogues, seed=s.seed, out=self.folder / "out", alive=s.alive
        )
        path.write_text(text)
        return path

    def _until_done(self, cluster: Cluster, driver: Driver, began: float) -> None:
        s = self.schedule
        next_actor, next_raylet = began + s.actor_s, began + s.raylet_s
        before: set[str] = set()
        while (code := driver.process.poll()) is None:
            now = time.monotonic()
            if now - began > s.deadline_s:
                self.outcome.wrong.append(f"not done within {s.deadline_s:g} s")
                return
            due = now >= next_actor, now >= next_raylet
            if any(due) and len((there := self._logged()) - before) >= s.logged:
                before = there
                if due[0]:
                    self._kill_actor()
                    next_actor = time.monotonic() + s.actor_s
                if due[1]:
                    self._kill_raylet(cluster)
                    next_raylet = time.monotonic() + s.raylet_s
            if self._driver_is_due():
                driver.kill()
                self.outcome.killed["driver"] += 1
            time.sleep(0.2)
        if code:
            self.outcome.wrong.append(f"the command ended with {code}")

    def _logged(self) -> set[str]:
        return set(self.round.child("log").names("log-"))

    def _driver_is_due(self) -> bool:
        """The driver's deaths are spread over the dialogues, so that each finds work undone."""
        dead, wanted = self.outcome.killed["driver"], self.schedule.drivers
        if dead >= wanted or not self.round.child("dialogues").names("part-"):
            return False
        done = len(durable_indices(self.round.child("dialogues")))
        return done >= self.schedule.dialogues * (dead + 1) / (wanted + 1)

    def _actors(self) -> list[tuple[str, int]]:
        found = []
        for actor in ray._private.state.actors().values():
            if actor["State"] == "ALIVE" and actor["Pid"]:
                found.append((str(actor["Name"]), int(actor["Pid"])))
        for _, pid in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.seen.setdefault(pid, psutil.Process(pid).create_time())
        return found

    def _kill_actor(self) -> None:
        kind = self.draw.choice(KINDS)
        of = sorted(pid for name, pid in self._actors() if name.startswith(kind))
        if of:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.draw.choice(of), signal.SIGKILL)
                self.outcome.killed[kind] += 1

    def _kill_raylet(self, cluster: Cluster) -> None:
        """A raylet ends without a word, and another joins."""
        self._actors()
        cluster.remove_node(self.draw.choice(list(cluster.worker_nodes)), allow_graceful=False)
        self.outcome.killed["raylet"] += 1
        cluster.add_node(wait=False, **NODE)

    # -- what must hold

    def _nothing_stays(self) -> None:
        ends = time.monotonic() + 30
        while (left := self._left()) and time.monotonic() < ends:
            time.sleep(0.5)
        self.outcome.wrong += [f"the process {name} stays behind" for name in left]

    def _left(self) -> list[str]:
        found = []
        for pid, born in self.seen.items():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process = psutil.Process(pid)
                if process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(f"{pid} {process.name()}")
        return found

    def _look(self) -> None:
        outcome, domain = self.outcome, open_domain("recipe")
        source = PlanSource(self.schedule.seed)
        indices = Counter(indices_in(self.round.child("dialogues")))
        for dialogue in read_dialogues(self.round.child("dialogues")):
            outcome.rows += 1
            outcome.turns += len(dialogue.turns)
            outcome.successful += dialogue.ended
            outcome.wrong += wrong_in(dialogue, domain, source)
        lost = sorted(set(range(self.schedule.dialogues)) - set(indices))
        twice = sorted(index for index, count in indices.items() if count > 1)
        outcome.wrong += [f"{len(lost)} lost: {lost[:9]}"] if lost else []
        outcome.wrong += [f"{len(twice)} twice: {twice[:9]}"] if twice else []
        # A driver that begins again takes second copies out; here there must be none to take.
        copies = re.findall(r".* are there twice", self.log.read_text(errors="replace"))
        outcome.wrong += copies
        if outcome.successful < 0.99 * self.schedule.dialogues:
            outcome.wrong.append(f"only {outcome.successful} are successful")


def wrong_in(dialogue: Dialogue, domain: Any, source: PlanSource) -> list[str]:
    """Return what is wrong with one record: a gap, or a turn that its walk does not have there."""
    if [turn.index for turn in dialogue.turns] != list(range(len(dialogue.turns))):
        return [f"{dialogue.index}: its turns are broken"]
    if dialogue.stop_reason is not StopReason.ENDED:
        return [f"{dialogue.index}: {dialogue.stop_reason}: {dialogue.error}"]
    return [
        f"{dialogue.index}, turn {turn.turn.index}: {turn.differences}"
        for turn in replay(dialogue, domain, source)
        if not turn.consistent
    ]


def main() -> None:
    """Run one schedule, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dialogues", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alive", type=int, default=48)
    parser.add_argument("--drivers", type=int, default=5)
    asked = parser.parse_args()
    schedule = Schedule(asked.dialogues, asked.seed, asked.alive, drivers=asked.drivers)
    with tempfile.TemporaryDirectory(prefix="duologue-chaos-") as folder:
        outcome = Chaos(Path(folder), schedule).run()
        if outcome.wrong:
            print(outcome.said)
    print(f"seed {asked.seed}: {outcome}")
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
