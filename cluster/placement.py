"""Whether engines find their places in a cluster, asked before any of them is started.

Ray lets an actor wait without a word for a GPU that no node has; only the engine's deadline would
end that, minutes later and without the reason. Pure: the nodes are given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cluster.nodes import Nodes, Resources
from specs.engine_section import EngineSection
from specs.errors import Finding, InputError, Where
from specs.gpus import ROUNDING

TRACE = 0.001
"""What a replica takes of the resource that Ray gives every node with an accelerator."""


def bundle(engine: EngineSection) -> dict[str, float]:
    """Return the resources of one replica, as a placement group's bundle; empty for none."""
    asked: dict[str, float] = dict(engine.resources)
    if engine.gpus:
        asked["GPU"] = engine.gpus
    if engine.accelerator:
        asked[f"accelerator_type:{engine.accelerator}"] = TRACE
    return asked


def bundle_in_words(engine: EngineSection) -> str:
    """Return what one replica asks for, in words; empty for nothing."""
    return ", ".join(f"{name} {much:g}" for name, much in bundle(engine).items())


@dataclass(slots=True)
class _Node:
    """A node's free resources; GPUs one by one, since a share lies on one of them."""

    free: dict[str, float]
    gpus: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, resources: Resources) -> _Node:
        count = math.floor(resources.get("GPU", 0.0) + ROUNDING)
        return cls({k: v for k, v in resources.items() if k != "GPU"}, [1.0] * count)

    def take(self, asked: Mapping[str, float]) -> bool:
        """Take a bundle's resources, where there is room for all of it."""
        others = {name: much for name, much in asked.items() if name != "GPU"}
        if any(self.free.get(name, 0.0) + ROUNDING < much for name, much in others.items()):
            return False
        taken = self._gpus(asked.get("GPU", 0.0))
        if taken is None:
            return False
        for number, much in taken.items():
            self.gpus[number] -= much
        for name, much in others.items():
            self.free[name] -= much
        return True

    def _gpus(self, much: float) -> dict[int, float] | None:
        if not much:
            return {}
        each, count = (1.0, round(much)) if much >= 1 else (much, 1)
        fitting = [n for n, free in enumerate(self.gpus) if free + ROUNDING >= each]
        fitting.sort(key=lambda number: self.gpus[number])  # the fullest first
        return dict.fromkeys(fitting[:count], each) if len(fitting) >= count else None


def places(wanted: Mapping[str, tuple[EngineSection, int]], nodes: Nodes) -> Counter[str]:
    """Return how many replicas of each engine find a place, all of them side by side.

    The largest bundles are placed first, on the fullest node that takes them, and new nodes come
    only where none is left: what passes may in rare cases of unlike bundles not fit in Ray's order.

    Args:
        wanted: the engine and how many replicas of it, by name.
    """
    # By turns, as the first of each engine is asked for before the second of any.
    most = max((count for _, count in wanted.values()), default=0)
    each = [
        (name, bundle(engine))
        for level in range(most)
        for name, (engine, count) in wanted.items()
        if level < count
    ]
    each.sort(key=lambda one: (-one[1].get("GPU", 0.0), -len(one[1])))
    there = [_Node.of(node) for node in nodes.there]
    coming, more = [_Node.of(node) for node in nodes.to_come()], nodes.more
    found: Counter[str] = Counter(dict.fromkeys(wanted, 0))
    for name, asked in each:
        if not asked or any(node.take(asked) for node in there):
            found[name] += 1
            continue
        for number, node in enumerate(coming if more else ()):
            if node.take(asked):
                there.append(coming.pop(number))
                more -= 1
                found[name] += 1
                break
    return found


def misfits(wanted: Mapping[str, tuple[EngineSection, int]], nodes: Nodes) -> list[Finding]:
    """Return everything about engines that keeps them from their places; nothing when all fit.

    Args:
        wanted: the engine and how many replicas of it have to be there, by name.
    """
    impossible = [
        finding
        for name, (engine, _) in wanted.items()
        for finding in _too_large(name, engine, nodes)
    ]
    if impossible:
        return impossible
    found = places(wanted, nodes)
    crowded = [name for name, (_, count) in wanted.items() if found[name] < count]
    if not crowded:
        return []
    asking = {name: (e, count) for name, (e, count) in wanted.items() if bundle(e)}
    room = ", ".join(f"{found[name]} of {wanted[name][1]} of {name}" for name in crowded)
    message = (
        f"only {room} find room: the engines need {_asked(asking)}, and {_there(asking, nodes)}"
    )
    hint = (
        f"Lower {' or '.join(f'engines.{name}.replicas' for name in crowded)}, or give a range "
        "(replicas = [1, 8]); let two engines share a GPU (gpus = 0.5 each), or both roles one "
        "engine; or name a larger cluster (cluster.address), or what this one may "
        "grow by (cluster.launcher)."
    )
    return [Finding(Where(", ".join(f"engines.{name}" for name in asking)), message, hint)]


def shares(
    engines: Mapping[str, EngineSection],
    work: Mapping[str, float],
    most: Mapping[str, int],
    nodes: Nodes,
) -> dict[str, int]:
    """Return the replicas of engines that are `auto`: the work of all is over soonest together.

    One after the other gets a replica, always the one with the most work left for each of its own.

    Args:
        work: seconds (or any measure) that one replica of an engine would work on all dialogues.
        most: replicas that an engine can keep busy.
    """
    counts = {name: engine.least for name, engine in engines.items()}
    growing = {name for name, engine in engines.items() if engine.replicas == "auto"}
    while growing:
        name = max(growing, key=lambda one: work.get(one, 0.0) / counts[one])
        more = {one: (engines[one], counts[one] + (one == name)) for one in engines}
        found = places(more, nodes)
        fits = all(found[one] == count for one, (_, count) in more.items())
        if not bundle(engines[name]) or not fits or counts[name] >= most.get(name, 1):
            growing.discard(name)
        else:
            counts[name] += 1
    return counts


def _too_large(name: str, engine: EngineSection, nodes: Nodes) -> Iterable[Finding]:
    """Yield what one replica asks for and no single node has."""
    for resource, much in bundle(engine).items():
        largest = nodes.largest(resource)
        if much <= largest + ROUNDING:
            continue
        could = " or could have" if nodes.types else ""
        if resource == "GPU":
            message = (
                f"one replica asks for {much:g} GPUs, and no node has{could} more than {largest:g}"
            )
            hint = "Take a smaller model, or one quantized; tensor_parallel stays within a node."
            if not largest:
                hint = "Without gpus an engine runs on the CPU; cluster.address names a cluster."
            yield Finding(Where(f"engines.{name}.gpus"), message, hint)
            continue
        what, _, kind = resource.partition("accelerator_type:")
        key = "accelerator" if kind else f"resources.{what}"
        message = f"asks for {kind or f'{what} {much:g}'}, and no node has{could} "
        message += "one" if kind or not largest else f"more than {largest:g}"
        yield Finding(Where(f"engines.{name}.{key}"), message, _resource_hint(nodes, kind))


def _resource_hint(nodes: Nodes, accelerator: str) -> str:
    prefix = "accelerator_type:"
    if accelerator:
        names = (name for node in nodes.there for name in node if name.startswith(prefix))
        known = sorted({name.removeprefix(prefix) for name in names})
        return f"The nodes have {', '.join(known) or 'no accelerator that Ray knows'}."
    return "Nodes have what their launcher gives them (ray_cluster.yaml: available_node_types)."


def _asked(asking: Mapping[str, tuple[EngineSection, int]]) -> str:
    def one(name: str, engine: EngineSection, count: int) -> str:
        what = [f"{engine.gpus:g} GPU"] if engine.gpus else []
        what += [engine.accelerator] if engine.accelerator else []
        what += [f"{resource} {much:g}" for resource, much in engine.resources.items()]
        return f"{name}: {count} x {' + '.join(what)}"

    gpus = sum((engine.gpus or 0) * count for engine, count in asking.values())
    each = ", ".join(one(name, engine, count) for name, (engine, count) in asking.items())
    return f"{gpus:g} GPUs ({each})"


def _there(asking: Mapping[str, tuple[EngineSection, int]], nodes: Nodes) -> str:
    """Return the resources in question, summed over the nodes, with those that could come."""
    names = dict.fromkeys(
        ["GPU", *(name for engine, _ in asking.values() for name in engine.resources)]
    )
    told = []
    for name in names:
        now = sum(node.get(name, 0.0) for node in nodes.there)
        later = nodes.most_of(name)
        told.append(f"{now:g}{f' (at most {later:g})' if nodes.types else ''} {_plural(name)}")
    by_node = sorted((node.get("GPU", 0.0) for node in nodes.there), reverse=True)
    each = ", ".join(f"{gpus:g}" for gpus in by_node)
    spread = f"; by node {each} GPUs" if len(nodes.there) > 1 else ""
    return f"the cluster has {', '.join(told)}{spread}"


def _plural(name: str) -> str:
    return "GPUs" if name == "GPU" else name


def check_places(wanted: Mapping[str, tuple[EngineSection, int]], nodes: Nodes) -> None:
    """Refuse engines that would wait for ever; raises InputError with all that does not fit."""
    if wrong := misfits(wanted, nodes):
        raise InputError(wrong)
