"""Whether the GPUs that engines ask for are there, asked before any of them is started.

Ray lets an actor wait for GPUs that no node has, without a word; only the engine's deadline would
end that, minutes later and without the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from specs.engine_section import EngineSection
from specs.errors import Finding, InputError, Where
from specs.gpus import ROUNDING, room


def cluster_address(address: str | None) -> str | None:
    """Return where the cluster is that a run joins; None where it starts its own."""
    return address or os.environ.get("RAY_ADDRESS") or None


def check_gpus(
    engines: Mapping[str, EngineSection], address: str | None, say: Callable[[str], None]
) -> None:
    """Compare what engines ask for with what the joined cluster has.

    Args:
        engines: by their names in the run file.
        address: that the run file gives. Such a cluster may still grow: it is only warned of.

    Raises:
        InputError: this machine has too few GPUs.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    short = shortage(engines, [float(node["Resources"].get("GPU", 0)) for node in nodes])
    if short is None:
        return
    if cluster_address(address) in (None, "local"):
        raise InputError([short])
    say(f"warning: {short.where}: {short.message}; waiting for the cluster to grow")


def shortage(engines: Mapping[str, EngineSection], nodes: Sequence[float]) -> Finding | None:
    """Return what is wrong where engines cannot get the GPUs that they ask for.

    What passes may still not fit, where engines with unlike shares get in each other's way.

    Args:
        engines: by their names in the run file.
        nodes: how many GPUs each node has.
    """
    asking = {name: engine for name, engine in engines.items() if engine.gpus}
    wanted = sum((engine.gpus or 0) * engine.least for engine in asking.values())
    if wanted > sum(nodes) + ROUNDING:
        each = ", ".join(f"{name}: {e.least} x {e.gpus:g}" for name, e in asking.items())
        message = f"the engines need {wanted:g} GPUs ({each}), and Ray finds {sum(nodes):g}"
        return _finding(asking, message)
    rooms = {name: sum(room(e.gpus or 0, gpus) for gpus in nodes) for name, e in asking.items()}
    crowded = [name for name, engine in asking.items() if rooms[name] < engine.least]
    if not crowded:
        return None
    of = ", ".join(f"{rooms[name]} of {asking[name].least} of {name}" for name in crowded)
    have = ", ".join(f"{gpus:g}" for gpus in nodes)
    message = (
        f"only {of} find room: a share of a GPU lies on one GPU, and whole GPUs on one node "
        f"(the nodes have {have})"
    )
    return _finding(crowded, message)


def _finding(names: Iterable[str], message: str) -> Finding:
    keys = [f"engines.{name}" for name in names]
    where = ", ".join(f"{key}.gpus" for key in keys)
    lower = " or ".join(f"{key}.gpus, {key}.replicas" for key in keys)
    hint = (
        f"Lower {lower} (without gpus an engine runs on the CPU), "
        "or name a cluster that has them (cluster.address)."
    )
    return Finding(Where(where), message, hint)
