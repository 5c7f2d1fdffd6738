"""What brings nodes up: `ray_cluster.yaml`, the lock that they install, and their `Dockerfile`."""

from __future__ import annotations

import copy
import fnmatch
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from specs.run_file import load

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "ray_cluster.yaml").read_text(encoding="utf-8")


@pytest.fixture
def cluster() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(TEXT)
    return found


def accepted(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_rays_own_schema_takes_it(cluster: dict[str, Any]) -> None:
    accepted(cluster)
    with pytest.raises(Exception, match="idle_timeout"):
        accepted({**cluster, "idle_timeout": 5})


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
    assert any("/shared" in command for command in cluster["initialization_commands"])


def test_jobs_that_are_stopped_have_time_to_write(cluster: dict[str, Any]) -> None:
    assert any("RAY_JOB_STOP_WAIT_TIME_S" in one for one in cluster["head_start_ray_commands"])


def test_nodes_get_what_the_package_is_built_from_and_nothing_else(cluster: dict[str, Any]) -> None:
    mounts = cluster["file_mounts"]
    assert all(target == f"~/duologue/{source}" for target, source in mounts.items())
    assert all((ROOT / source).exists() for source in mounts.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    assert set(mounts.values()) == {*packages, *needed, "requirements-gpu.txt"}


def test_the_variant_with_an_image_is_one_that_ray_takes(cluster: dict[str, Any]) -> None:
    (block,) = re.findall(r"^# (docker:\n(?:#.*\n)+)", TEXT, re.MULTILINE)
    keys = yaml.safe_load(re.sub(r"^# ", "", block, flags=re.MULTILINE))
    assert set(keys) == {"docker", "file_mounts", "setup_commands"}
    accepted({**cluster, **keys})
    assert "--volume /shared:/shared" in keys["docker"]["run_options"]
    with pytest.raises(Exception, match="container"):
        accepted({**cluster, "docker": {"image": keys["docker"]["image"]}})


# -- the lock


def pins() -> dict[str, Version]:
    text = (ROOT / "requirements-gpu.txt").read_text(encoding="utf-8")
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lines if line]
    assert None not in found
    return {canonicalize_name(one[1]): Version(one[2]) for one in found if one}


def requirements() -> list[Requirement]:
    """Return what the project asks for on a machine with GPUs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["gpu"]]
    return [Requirement(one) for one in asked]


@pytest.mark.parametrize("asked", requirements(), ids=lambda asked: asked.name)
def test_the_lock_has_what_the_project_asks_for(asked: Requirement) -> None:
    assert asked.specifier.contains(pins()[canonicalize_name(asked.name)])


def test_the_lock_has_the_versions_that_the_tests_run_with() -> None:
    """But where the engine for GPUs asks for others."""
    text = (ROOT / "requirements-cpu.txt").read_text(encoding="utf-8")
    tested = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))
    here = {canonicalize_name(name): Version(version) for name, version in tested.items()}
    names = {canonicalize_name(asked.name) for asked in requirements()} - {"torch", "vllm"}
    assert {name: pins()[name] for name in names} == {name: here[name] for name in names}


# -- the image


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, with what they say."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = [line.partition(" ")[::2] for line in lines if line.strip()]
    return [(name, rest.strip()) for name, rest in found]


def said(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_the_image_stands_on_a_pinned_base_with_the_python_of_the_lock() -> None:
    assert {name for name, _ in instructions()} == {"FROM", "RUN", "USER", "WORKDIR", "ENV", "COPY"}
    (base,) = said("FROM")
    image, _, tag = base.partition(":")
    assert image == "nvidia/cuda"
    cuda = re.fullmatch(r"(\d+\.\d+)\.\d+-base-ubuntu24\.04", tag)
    assert cuda
    # The runtime that PyTorch's wheels bring is of the same CUDA.
    assert str(pins()["nvidia-cuda-runtime"]).startswith(cuda[1])
    assert "python3.12 -m venv duologue-env" in " ".join(said("RUN"))


def test_the_image_copies_what_is_there_and_what_may_be_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line.removeprefix("!").rstrip("/") for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert not any(fnmatch.fnmatch(".env", name) for name in sent)
    copied = {source for rest in said("COPY") for source in rest.split()[1:-1]}
    assert copied == sent
    assert all((ROOT / source).exists() for source in copied)
    assert all(rest.startswith("--chown=ubuntu:ubuntu ") for rest in said("COPY"))


def test_the_image_is_not_roots_and_installs_the_lock_before_the_project() -> None:
    names = [name for name, _ in instructions()]
    assert said("USER") == ["ubuntu"]
    assert names.index("USER") < names.index("COPY")  # as root only what apt installs
    installs = [rest for rest in said("RUN") if "pip install" in rest]
    assert ["requirements-gpu.txt" in rest for rest in installs] == [True, False]
    assert all("--no-deps" in rest for rest in installs)
    assert not re.search(r"TOKEN|KEY|SECRET|PASSWORD", " ".join(said("ENV") + said("RUN")))


def test_the_image_and_the_machines_are_set_up_alike(cluster: dict[str, Any]) -> None:
    """So that the same commands start Ray in both."""
    found = "echo 'export PATH=$HOME/duologue-env/bin:$PATH' >> "
    machine, image = "\n".join(cluster["setup_commands"]), "\n".join(said("RUN"))
    assert said("WORKDIR") == ["/home/ubuntu"]
    assert "python3.12 -m venv ~/duologue-env" in machine
    assert "python3.12 -m venv duologue-env" in image
    assert f"{found}~/.bashrc" in machine
    assert f"{found}.bashrc" in image
