"""Whether the GPUs that engines ask for are there, asked before any of them is started.

Ray lets an actor wait for GPUs that no node has, without a word; only the engine's deadline would
end that, minutes later and without the reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from specs.errors import Finding, InputError, Where
from specs.run_file import EngineSection


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

    there = float(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    short = shortage(engines, there)
    if short is None:
        return
    if cluster_address(address) in (None, "local"):
        raise InputError([short])
    say(f"warning: {short.where}: {short.message}; waiting for the cluster to grow")


def shortage(engines: Mapping[str, EngineSection], there: float) -> Finding | None:
    """Return what is wrong where there are fewer GPUs than engines ask for."""
    asking = {name: engine for name, engine in engines.items() if engine.gpus}
    wanted = sum((engine.gpus or 0) * engine.replicas for engine in asking.values())
    if wanted <= there + 1e-6:
        return None
    each = ", ".join(f"{name}: {e.replicas} x {e.gpus:g}" for name, e in asking.items())
    where = ", ".join(f"engines.{name}.gpus" for name in asking)
    lower = " or ".join(f"engines.{name}.gpus, engines.{name}.replicas" for name in asking)
    hint = (
        f"Lower {lower} (without gpus an engine runs on the CPU), "
        "or name a cluster that has them (cluster.address)."
    )
    message = f"the engines need {wanted:g} GPUs ({each}), and Ray finds {there:g}"
    return Finding(Where(where), message, hint)
