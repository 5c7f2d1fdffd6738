"""Engines in placement groups of their own, on a cluster to which a node comes late."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster

from actors.turn_log import read_log
from specs.domain import SIDES
from specs.parts import Folder
from tests.ray.chaos import raylets
from tests.ray.command import Command, duologue, rows, run_file

ENGINES = """
[engines.user]
kind = "reference"
gpus = 1
resources = { user_engine = 1 }
faults = { latency_s = [0.05, 0.05] }
[engines.agent]
kind = "reference"
gpus = 1
resources = { agent_engine = 1 }
faults = { latency_s = [0.05, 0.05] }
"""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without a GPU, and a node for each side."""
    sides = [{"num_gpus": 1, "resources": {f"{side}_engine": 1}} for side in SIDES]
    with raylets({"num_cpus": 2}, *({"num_cpus": 1, **side} for side in sides)) as made:
        yield made


def two_engines(folder: Path, address: str, dialogues: int) -> tuple[str, list[str]]:
    """Return a run file whose sides have an engine each, and settings for the cluster."""
    path = run_file(folder, dialogues)
    text = path.read_text().replace("[roles]", f"{ENGINES}[roles]")
    path.write_text(
        text.replace('user = "ref"', 'user = "user"').replace('t = "ref"', 't = "agent"')
    )
    return str(path), [f"--set=cluster.address={address}"]


def groups() -> dict[str, str]:
    """Return the states of the placement groups by name."""
    table: dict[str, Any] = ray.util.placement_group_table()
    return {one["name"]: one["state"] for one in table.values()}


def replicas(folder: Path) -> set[str]:
    """Return whose words are on disk, in dialogues that are over and in others."""
    over = {turn["replica"] for row in rows(folder).values() for turn in row["turns"]}
    unfinished = read_log(log_of(folder)).unfinished.values()
    return over | {turn.replica for one in unfinished for turn in one.turns}


def log_of(folder: Path) -> Folder:
    return Folder.of(folder / "out" / "tea" / "round-0" / "log")


@dataclass
class Watched:
    """A turn log, of which every look reads what is new: the whole of it grows and grows."""

    log: Folder
    seen: set[str] = field(default_factory=set)

    def has_turn_of(self, replica: str) -> bool:
        """Return whether a new turn is of a replica."""
        new = [name for name in self.log.names("log-") if name not in self.seen]
        self.seen.update(new)
        return any(f'"replica":"{replica}"' in body for name in new for body in self._bodies(name))

    def _bodies(self, name: str) -> list[str]:
        try:
            table = pq.read_table(self.log.file(name), columns=["body"])
        except FileNotFoundError:  # its dialogues are over, and in a part
            return []
        found: list[str] = table.column("body").to_pylist()
        return found


def test_each_replica_has_its_group_and_a_late_one_is_used(
    cluster: Cluster, tmp_path: Path
) -> None:
    path, settings = two_engines(tmp_path, cluster.address, 2000)  # more than anybody waits for
    log = Watched(log_of(tmp_path))
    command = Command(("generate", path, *settings, "--set=engines.agent.replicas=[1, 2]"))
    assert command.says("^playing"), command.said
    assert {"user-0": "CREATED", "agent-0": "CREATED"}.items() <= groups().items()
    cluster.add_node(num_cpus=1, num_gpus=1, resources={"agent_engine": 1})
    command.wait_until(lambda: groups().get("agent-1") == "CREATED")
    command.wait_until(lambda: log.has_turn_of("agent-1"))
    command.interrupt()
    assert command.end() == 130, command.said
    assert replicas(tmp_path) == {"user-0", "agent-0", "agent-1"}
    assert set(groups().values()) == {"REMOVED"}


def test_what_does_not_fit_is_said_at_once_and_nothing_is_started(
    cluster: Cluster, tmp_path: Path
) -> None:
    path, settings = two_engines(tmp_path, cluster.address, 4)
    code, said = duologue("generate", path, *settings, "--set=engines.agent.replicas=2")
    assert code == 2
    assert "only 1 of 2 of agent find room" in said
    assert "by node 1, 1, 0 GPUs" in said
    assert "starting engine" not in said
    code, said = duologue("plan", path, *settings, "--set=engines.user.gpus=4")
    assert code == 2
    assert "one replica asks for 4 GPUs, and no node has more than 1" in said
