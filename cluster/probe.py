"""Whether every node of a cluster sees the run's folder, asked before anything is written there.

A local path means another disk on each node, unless it is mounted from one that they share; sinks
on a node that does not share it would write where nobody looks.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from specs.errors import Finding, InputError, Where
from specs.parts import Folder

PROBE_S = 60.0
"""How long the nodes may take to answer; a worker process has to start on each."""


def check_shared(folder: Folder) -> None:
    """Let every node look for a file that this one has written; nothing to do on a single node.

    Args:
        folder: of the run; it is there.

    Raises:
        InputError: naming the nodes that do not see it.
    """
    nodes = {
        str(node["NodeID"]): str(node["NodeManagerAddress"])
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    }
    if not folder.local or len(nodes) < 2:
        return
    name = f"_probe-{uuid.uuid4().hex}"
    folder.write_bytes(name, b"")
    try:
        blind = _blind(folder.file(name), nodes)
    finally:
        folder.delete(name)
    if blind:
        where = ", ".join(sorted(blind))
        message = f"is not seen by {len(blind)} of {len(nodes)} nodes ({where})"
        hint = (
            "Name a folder that all nodes share (--set run.out=/shared/runs), or an object store "
            "(--set run.out=s3://bucket/runs)."
        )
        raise InputError([Finding(Where(folder.path), message, hint)])


def _blind(path: str, nodes: Mapping[str, str]) -> list[str]:
    """Return the addresses of the nodes on which there is no such file; late ones are not told."""
    look = ray.remote(num_cpus=0, max_retries=1)(_sees)
    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            path
        ): address
        for node, address in nodes.items()
    }
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_S)
    blind = []
    for ref in done:
        try:
            if not ray.get(ref):
                blind.append(asked[ref])
        except RayError:  # the node has just gone: it will not write either
            continue
    return blind


def _sees(path: str) -> bool:
    return Path(path).exists()
