"""`ray_cluster.yaml` is what Ray's launcher takes, and fits the run file that is made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from specs.run_file import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cluster() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))
    return found


def test_rays_own_schema_takes_it(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config({**cluster, "idle_timeout": 5}))


def test_its_workers_have_what_the_engines_of_the_run_file_ask_for(cluster: dict[str, Any]) -> None:
    run = load(ROOT / "specs" / "runs" / "cluster.toml")
    nodes = cluster["available_node_types"]
    for name in (run.roles.user, run.roles.agent):
        engine = run.engines[name]
        asked = {"GPU": engine.gpus, **engine.resources}
        fitting = [
            kind
            for kind, node in nodes.items()
            if all(node["resources"].get(what, 0) >= much for what, much in asked.items())
        ]
        assert fitting == [name]
        assert nodes[name]["max_workers"] >= engine.most
    assert "GPU" not in nodes[cluster["head_node_type"]]["resources"]
    assert run.run.out.startswith("/shared/")
    assert any("/shared" in command for command in cluster["setup_commands"])


def test_jobs_that_are_stopped_have_time_to_write(cluster: dict[str, Any]) -> None:
    assert any("RAY_JOB_STOP_WAIT_TIME_S" in one for one in cluster["head_start_ray_commands"])
