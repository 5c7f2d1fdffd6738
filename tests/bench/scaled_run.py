"""A run against simulated replicas: the driver's process, and how a bench starts and reads it.

python -m tests.bench.scaled_run SETTING NOTES

All but the replicas is what a user's run has: sinks, ledger, retrievers, walkers, and the driver's
own loop, which notes where the run stands whenever it looks around.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from cluster.generate import open_run_domain, source_of
from cluster.progress import Reporter, Snapshot
from cluster.run_folder import RunFolder
from cluster.session import ray_session
from cluster.sizes import sizes
from cluster.spending import Spending
from cluster.watch import watch
from specs.engine_section import ReferenceFaults
from specs.parts import read_dialogues
from specs.records import Dialogue
from specs.run_file import RunFile, validate
from tests.bench.process_costs import Costs, watched
from tests.bench.simulated_replicas import SimulatedCrew
from tests.ray.command import ROOT, environment

NAME = "scaled"


@dataclass(frozen=True, slots=True)
class Setting:
    """One run.

    Attributes:
        replicas: by engine: `shared` for both sides, or `user` and `agent`.
        places: of each replica.
        alive: dialogues, of all walkers together; None for what the run file's `auto` brings.
        speeds: by engine, of its replicas in turn; 1 for those that are not in it.
        limit_s: it is interrupted after so long, whatever is still to be played.
        hosts: actors that the replicas live in.
    """

    replicas: Mapping[str, int]
    places: int
    dialogues: int
    faults: dict[str, Any]
    alive: int | None = None
    walkers: int | None = None
    sinks: int = 1
    retrievers: int = 1
    speeds: Mapping[str, list[float]] = field(default_factory=dict)
    limit_s: float = 600.0
    hosts: int = 1
    embedding: str = "lexical"

    def roles(self) -> dict[str, str]:
        """Return the engine of each side."""
        return {side: side if side in self.replicas else "shared" for side in ("user", "agent")}

    def run_file(self, out: Path) -> RunFile:
        """Return the run file."""
        walkers: dict[str, Any] = {"sinks": self.sinks, "retrievers": self.retrievers}
        if self.walkers is not None:
            walkers["count"] = self.walkers
        if self.alive is not None:
            walkers["alive"] = -(-self.alive // (self.walkers or 1))
        engine = {"kind": "reference", "max_running": self.places, "faults": self.faults}
        engine["turn_deadline_s"] = 3600.0  # what a straggler takes is its time
        return validate(
            {
                "run": {"name": NAME, "dialogues": self.dialogues, "out": str(out)},
                "domain": {"path": "recipe"},
                "engines": {
                    name: {**engine, "replicas": count} for name, count in self.replicas.items()
                },
                "roles": self.roles(),
                "walkers": walkers,
                "retrieval": {"embedding": self.embedding},
            },
            "bench",
        )


@dataclass(frozen=True, slots=True)
class Note:
    """Where a run stood.

    Attributes:
        at: seconds since the epoch.
        used: place-seconds, by engine, since the start; `drawn`: seconds of the answered requests.
    """

    at: float
    turns: int
    done: int
    used: Mapping[str, float]
    drawn: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Played:
    """What a run came to.

    Attributes:
        dialogues: those in parts, by index.
        alive: dialogues of all walkers together; `walkers`: how many there were.
    """

    setting: Setting
    notes: Sequence[Note]
    costs: Costs
    dialogues: Sequence[Dialogue]
    alive: int
    walkers: int

    @property
    def complete(self) -> bool:
        """Whether all was played that was wanted."""
        return len(self.dialogues) == self.setting.dialogues

    @property
    def seconds(self) -> float:
        """From the first dialogue's beginning to the last one's end."""
        began = min(dialogue.started_at for dialogue in self.dialogues)
        return (max(dialogue.ended_at for dialogue in self.dialogues) - began).total_seconds()


def play(setting: Setting, folder: Path) -> Played:
    """Run a setting in a process of its own, with everything it says in the folder's `said`.

    Raises:
        RuntimeError: when it failed.
    """
    folder.mkdir(parents=True)
    given, notes = folder / "setting.json", folder / "notes"
    run = setting.run_file(folder / "out")
    given.write_text(json.dumps({**asdict(setting), "run": run.model_dump(mode="json")}))
    command = [sys.executable, "-m", "tests.bench.scaled_run", str(given), str(notes)]
    with (folder / "said").open("wb") as said:
        driver = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=said, stderr=said)
        with watched(driver.pid) as costs:
            code = driver.wait()
    if code:
        raise RuntimeError(f"the run has failed:\n{(folder / 'said').read_text()[-3000:]}")
    noted = [Note(**json.loads(line)) for line in notes.read_text().splitlines()]
    parts = RunFolder(run.run.out, NAME).dialogues()
    dialogues = sorted(read_dialogues(parts), key=lambda dialogue: dialogue.index)
    counted = sizes(run)
    alive = counted.walkers * counted.alive
    return Played(setting, noted, costs, dialogues, alive, counted.walkers)


class Notes(Reporter):
    """Notes where a run stands in place of showing it, and interrupts it at its limit."""

    def __init__(self, crew: SimulatedCrew, file: TextIO, limit_s: float) -> None:
        super().__init__()
        self._crew, self._file, self._limit_s = crew, file, limit_s

    def due(self) -> bool:
        return True

    def show(self, snapshot: Snapshot) -> None:
        use = self._crew.use()
        note = Note(
            at=max(one.since for one in use.values()),
            turns=sum(stats.turns for stats in snapshot.walkers),
            done=snapshot.done,
            used={name: one.seconds for name, one in use.items()},
            drawn={name: one.drawn for name, one in use.items()},
        )
        self._file.write(f"{json.dumps(asdict(note))}\n")
        if snapshot.elapsed_s >= self._limit_s:
            raise KeyboardInterrupt


def main(given: str, notes: str) -> None:
    setting = json.loads(Path(given).read_text())
    run = validate(setting["run"], "bench")
    domain = open_run_domain(run)
    reporter = Reporter()
    with RunFolder.of(run) as folder, ray_session(None):
        folder.open(run, domain)
        crew = SimulatedCrew(
            run,
            domain,
            source_of(run),
            folder.round(),
            reporter.say,
            sizes(run),
            speeds=setting["speeds"],
        )
        try:
            crew.start_hosts(setting["hosts"])
            crew.open_sinks()
            before = crew.start().done
            with Path(notes).open("w", buffering=1) as file:
                spending = Spending(run, folder.round(), 1, reporter.say)
                notes_of = Notes(crew, file, setting["limit_s"])
                watch(crew, notes_of, folder.check, before, spending)
        finally:
            crew.close()


def faults_of(setting: Setting) -> ReferenceFaults:
    """Return the latencies of a setting's engines."""
    return ReferenceFaults.model_validate(setting.faults)


if __name__ == "__main__":
    main(*sys.argv[1:3])
