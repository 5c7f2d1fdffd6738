"""What every node of a cluster is asked before anything is written there.

Whether it sees the run's folder: a local path means another disk on each node, unless it is mounted
from one that they share, and sinks on a node that does not share it would write where nobody looks.
And whether it runs the same code as this process, under the same Python and Ray: actors are made
of the code that their node has, and records of two versions would lie side by side.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.nodes import alive_nodes
from specs.errors import Finding, InputError, Where
from specs.parts import Folder

PROBE_S = 60.0
"""How long the nodes may take to answer; a worker process has to start on each."""

PACKAGES = ("specs", "actors", "trainer", "cluster")

SAME_HINT = (
    "Let all nodes install the same (setup_commands in ray_cluster.yaml), or send the code along: "
    "ray job submit --working-dir . -- python -m cluster.cli ..."
)


@dataclass(frozen=True, slots=True)
class Kit:
    """What one process runs on.

    Attributes:
        python, ray: versions.
        code: digest of Duologue's modules; empty where there are none.
        place: the folder that they were found in.
    """

    python: str
    ray: str
    code: str
    place: str

    def differences(self, own: Kit) -> list[str]:
        """Return in what it differs from this process's, in words: what it has, what is here."""
        found = []
        if self.python != own.python:
            found.append(f"Python {self.python} (here {own.python})")
        if self.ray != own.ray:
            found.append(f"Ray {self.ray} (here {own.ray})")
        if not self.code:
            found.append(f"no Duologue (here that of {own.place})")
        elif self.code != own.code:
            ours = f"here {own.code[:8]} in {own.place}"
            found.append(f"Duologue {self.code[:8]} in {self.place} ({ours})")
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """What one node answered.

    Attributes:
        sees: whether it sees the probe's file; None where it was not asked.
        kit: None where it could not look.
        failure: why it could not.
    """

    node: str
    sees: bool | None = None
    kit: Kit | None = None
    failure: str = ""

    def wrong(self, own: Kit) -> list[str]:
        """Return what keeps this node from a run of the process with this kit."""
        if self.kit is None:
            return [f"no answer: {self.failure}"]
        return self.kit.differences(own)


def check_nodes(folder: Folder) -> None:
    """Ask every node for what it sees and what it runs on; nothing to do on a single node.

    Args:
        folder: of the run; it is there.

    Raises:
        InputError: naming the nodes that do not see it, and those that run on other code or
            versions than this process.
    """
    nodes = {str(node["NodeID"]): str(node["NodeManagerAddress"]) for node in alive_nodes()}
    if len(nodes) < 2:
        return
    name = f"_probe-{uuid.uuid4().hex}"
    if folder.local:
        folder.write_bytes(name, b"")
    try:
        answers = _asked(folder.file(name) if folder.local else "", nodes)
    finally:
        if folder.local:
            folder.delete(name)
    if wrong := findings(folder.path, answers, Kit(*_look("")[1:]), len(nodes)):
        raise InputError(wrong)


def findings(path: str, answers: list[Answer], own: Kit, nodes: int) -> list[Finding]:
    """Return what is wrong with the nodes' answers, compared with this process.

    Args:
        path: of the folder that they were asked for.
        nodes: that there are; those that are gone meanwhile have not answered.
    """
    return [*_blind(path, answers, nodes), *_unlike(answers, own)]


def _blind(path: str, answers: list[Answer], nodes: int) -> Iterator[Finding]:
    blind = sorted(answer.node for answer in answers if answer.sees is False)
    if blind:
        message = f"is not seen by {len(blind)} of {nodes} nodes ({', '.join(blind)})"
        hint = (
            "Name a folder that all nodes share (--set run.out=/shared/runs), or an object store "
            "(--set run.out=s3://bucket/runs)."
        )
        yield Finding(Where(path), message, hint)


def _unlike(answers: list[Answer], own: Kit) -> Iterator[Finding]:
    # Several nodes may have one address: raylets of one machine.
    told = [(answer.node, answer.wrong(own)) for answer in answers]
    unlike = {f"{node} has {', '.join(what)}" for node, what in told if what}
    if unlike:
        yield Finding(Where("cluster"), f"nodes differ: {'; '.join(sorted(unlike))}", SAME_HINT)


def _asked(path: str, nodes: Mapping[str, str]) -> list[Answer]:
    """Return the nodes' answers; those that are late, or have just gone, give none."""
    # By value: a node may have another version of this module, or none at all.
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
    try:
        look = ray.remote(num_cpus=0, max_retries=1)(_look)
        asked = {
            look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(path): address
            for node, address in nodes.items()
        }
    finally:
        ray.cloudpickle.unregister_pickle_by_value(module)  # type: ignore[no-untyped-call]
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_S)
    answers = []
    for ref in done:
        try:
            sees, *kit = ray.get(ref)
        except (RayTaskError, RuntimeEnvSetupError) as error:
            answers.append(Answer(asked[ref], failure=str(error).strip().rpartition("\n")[2]))
        except RayError:  # the node has just gone: it will not write either
            continue
        else:
            answers.append(Answer(asked[ref], sees if path else None, Kit(*kit)))
    return answers


def _look(path: str) -> tuple[bool, str, str, str, str]:
    """Return whether there is such a file, and what a `Kit` says, of the process it runs in."""
    import hashlib
    import importlib.util
    import os.path
    import platform
    from pathlib import Path

    digest, place = hashlib.sha256(), ""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for folder in sorted(spec.submodule_search_locations or () if spec else ()):
            place = place or str(Path(folder).parent)
            for file in sorted(Path(folder).rglob("*.py")):
                digest.update(str(file.relative_to(folder)).encode())
                digest.update(file.read_bytes())
    code = digest.hexdigest() if place else ""
    versions = platform.python_version(), ray.__version__
    return os.path.exists(path), *versions, code, place
