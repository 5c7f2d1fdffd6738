"""A cluster that grows for a run's engines and shrinks when it is over: Ray's own autoscaler.

The launcher's file and the run file that is made for it, with engines that need no model and nodes
that are processes on this machine; how many there are is the autoscaler's doing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FAKE_HEAD_NODE_TYPE,
    FakeMultiNodeProvider,
)
from ray.autoscaler._private.util import prepare_config

from tests.ray.command import HANG_S, ROOT, Command, rows
from tests.ray.head import Head, free_ports, head

SMALL = {"object_store_memory": 80 * 1024 * 1024}
IDLE_S = 6.0
VARIABLES = {
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    # As `ray up` starts its heads.
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    "RAY_NODE_TYPE_NAME": FAKE_HEAD_NODE_TYPE,
}


def made_up(address: str) -> dict[str, Any]:
    """Return the launcher's file with a provider whose nodes are processes of this machine."""
    text = (ROOT / "ray_cluster.yaml").read_text(encoding="utf-8")
    config: dict[str, Any] = prepare_config(yaml.safe_load(text))  # as `ray up` sends it to a head
    config["provider"] = {
        "type": "external",  # under its own name Ray looks for a file that its wheel lacks
        "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
        "gcs_address": address,
        "head_node_id": FAKE_HEAD_NODE_ID,
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    kinds = config["available_node_types"]
    for kind in kinds.values():
        kind["node_config"] = {}
        kind["resources"] |= SMALL
    # The provider knows its head by this name.
    kinds[FAKE_HEAD_NODE_TYPE] = kinds.pop(config["head_node_type"])
    return {
        **config,
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "file_mounts": {},
        "idle_timeout_minutes": IDLE_S / 60,
    }


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Head]:
    """A head alone, joined by this process."""
    (port,) = free_ports(1)
    config = made_up(f"{get_node_ip_address()}:{port}")  # type: ignore[no-untyped-call]
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    cpus = config["available_node_types"][FAKE_HEAD_NODE_TYPE]["resources"]["CPU"]
    arguments = (f"--num-cpus={cpus}", f"--autoscaling-config={path}")
    with head(tmp_path / "log", VARIABLES, arguments, port) as found:
        try:
            ray.init(address=found.address, log_to_driver=False)
            yield found
        finally:
            ray.shutdown()


def workers() -> Counter[str]:
    """Return how many nodes of each engine's kind are up."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return Counter(name for node in alive for name in node if name.endswith("_engine"))


def until(holds: Callable[[], bool]) -> float:
    """Return when it holds, and fail where that takes too long."""
    ends = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < ends, workers()
        time.sleep(0.1)
    return time.monotonic()


def test_a_cluster_grows_for_the_engines_and_shrinks_when_they_have_gone(
    growing: Head, tmp_path: Path
) -> None:
    assert not workers()
    began = time.monotonic()
    settings = (
        f"cluster.address={growing.address}",
        "run.name=tea",
        f"run.out={tmp_path / 'out'}",
        "run.dialogues=40",
        "retrieval.embedding=lexical",
        *(f"engines.{name}.kind=reference" for name in ("user", "agent")),
        *(f"engines.{name}.replicas=1" for name in ("user", "agent")),
    )
    command = Command(
        ("generate", "specs/runs/cluster.toml", *(f"--set={one}" for one in settings))
    )
    both = Counter({"user_engine": 1, "agent_engine": 1})
    grown = until(lambda: workers() == both or command.process.poll() is not None)
    assert command.says("^playing"), command.said
    assert workers() == both  # no more of them than the engines asked for
    playing = time.monotonic()
    assert command.end() == 0, command.said
    ended = time.monotonic()  # on a slow machine they may have gone before the command itself
    shrunk = until(lambda: not workers())
    print(f"\nfrom the start: two nodes {grown - began:.1f} s, playing {playing - began:.1f} s")
    print(f"at an end {ended - began:.1f} s; no node {shrunk - ended:.1f} s after it")
    played = rows(tmp_path)
    assert set(played) == set(range(40))
    replicas = {turn["replica"] for row in played.values() for turn in row["turns"]}
    assert replicas == {"user-0", "agent-0"}
