"""What a cluster has, and what it could have: its nodes now, and those that it may still grow by.

What it may grow by stands in the launcher's file: Ray itself does not tell it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from specs.errors import Finding, InputError, Where

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the launcher's file on the head."""

HEAD = "node:__internal_head__"
"""The resource by which Ray marks the head."""

Resources = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class NodeType:
    """A kind of node that a cluster may grow by, and how many of it there may be in all."""

    name: str
    resources: Resources
    most: int
    head: bool = False


@dataclass(frozen=True, slots=True)
class Nodes:
    """A cluster as a placement sees it.

    Attributes:
        there: the resources of each node that is up.
        types: that it may grow by; empty where it does not grow.
        most: nodes in all; None where only the types are limited.
    """

    there: Sequence[Resources]
    types: Sequence[NodeType] = ()
    most: int | None = None

    def to_come(self) -> list[Resources]:
        """Return the nodes of which `more` may still come, the smallest of them first."""
        there = [0] * len(self.types)
        for node in self.there:
            for number, kind in enumerate(self.types):
                if kind.head == (HEAD in node) and _is(node, kind.resources):
                    there[number] += 1
                    break
        coming: list[Resources] = []
        for count, kind in zip(there, self.types, strict=True):
            coming += [kind.resources] * max(0, kind.most - count)
        return sorted(coming, key=lambda node: (node.get("GPU", 0.0), sum(node.values())))

    @property
    def more(self) -> int:
        """How many nodes may still come."""
        coming = len(self.to_come())
        return coming if self.most is None else max(0, min(coming, self.most - len(self.there)))

    def most_of(self, resource: str) -> float:
        """Return how much of a resource there is, together with all that may come."""
        now = sum(node.get(resource, 0.0) for node in self.there)
        coming = sorted((node.get(resource, 0.0) for node in self.to_come()), reverse=True)
        return now + sum(coming[: self.more])

    def largest(self, resource: str) -> float:
        """Return the most of a resource that one node has, or would have."""
        all_ = itertools.chain(self.there, (kind.resources for kind in self.types if kind.most))
        return max((node.get(resource, 0.0) for node in all_), default=0.0)


def cluster_address(address: str | None) -> str | None:
    """Return where the cluster is that a run joins; None where it starts its own."""
    return address or os.environ.get("RAY_ADDRESS") or None


def alive_nodes() -> list[dict[str, Any]]:
    """Return the nodes of the joined cluster that are up, as `ray.nodes()` gives them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def nodes_of(launcher: str | None, address: str | None) -> Nodes:
    """Return the nodes of the cluster that this process has joined.

    Args:
        launcher: `cluster.launcher` of the run file.
        address: that the run file gives; a Ray of one's own does not grow.

    Raises:
        InputError: the launcher's file cannot be used.
    """
    there = [_amounts(node["Resources"]) for node in alive_nodes()]
    path = Path(launcher) if launcher else BOOTSTRAP.expanduser()
    if cluster_address(address) in (None, "local") or not (launcher or path.is_file()):
        return Nodes(there)
    return Nodes(there, *read_launcher(path))


def read_launcher(path: Path) -> tuple[list[NodeType], int | None]:
    """Return the worker types of a cluster launcher's file, and how many nodes there may be.

    Raises:
        InputError: it cannot be read, or has no node types.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError([Finding(Where(str(path)), f"cannot be read: {error}")]) from None
    kinds = data.get("available_node_types") if isinstance(data, dict) else None
    if not isinstance(kinds, dict):
        hint = "cluster.launcher names a file for `ray up`, such as ray_cluster.yaml."
        raise InputError([Finding(Where(str(path)), "has no available_node_types", hint)])
    head = data.get("head_node_type")
    workers = data.get("max_workers")
    types = []
    wrong = []
    for name, kind in kinds.items():
        try:
            most = 1 if name == head else int(kind.get("max_workers", workers or 0))
            resources = _amounts(kind.get("resources") or {})
            types.append(NodeType(str(name), resources, most, head=name == head))
        except (AttributeError, TypeError, ValueError):
            what = f"available_node_types.{name} has no resources and max_workers that can be read"
            wrong.append(Finding(Where(str(path)), what))
    if wrong:
        raise InputError(wrong)
    return types, None if workers is None else int(workers) + 1


def _amounts(resources: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(much) for name, much in resources.items()}


def _is(node: Resources, kind: Resources) -> bool:
    """Say whether a node may be of a kind: Ray adds resources of its own to those declared."""
    own = {name: much for name, much in kind.items() if name not in ("memory", "CPU")}
    return all(node.get(name, 0.0) == much for name, much in own.items()) and (
        node.get("GPU", 0.0) == kind.get("GPU", 0.0)
    )


class CpuPlaces:
    """Chooses nodes for what needs no GPU: those without any, by turns, by their cores."""

    def __init__(self) -> None:
        self._turn = itertools.count()

    def next(self) -> Any:
        """Return the next scheduling strategy; the node may go, and another is taken then."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        alive = alive_nodes()
        seats = list(cpu_seats(alive))
        if not seats or len(alive) < 2:
            return "SPREAD"
        return NodeAffinitySchedulingStrategy(seats[next(self._turn) % len(seats)], soft=True)


def cpu_seats(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the nodes without a GPU, each as often as it has cores, neighbours apart.

    Args:
        nodes: as `ray.nodes()` gives them.
    """
    cores = {
        str(node["NodeID"]): int(node["Resources"].get("CPU", 0))
        for node in nodes
        if not node["Resources"].get("GPU", 0)
    }
    most = max(cores.values(), default=0)
    return [name for level in range(most) for name, count in cores.items() if level < count]
