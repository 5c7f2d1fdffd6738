"""How long a run takes, what it costs, and how its GPUs are best shared out. Pure.

A run is over when the engine with the most work for each of its replicas is done: its seconds are
the tokens that it has to write by what one replica writes in a second, with its prefill in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from actors.foresight import Foreseen, total
from cluster.nodes import Nodes
from cluster.placement import places, shares
from cluster.sizes import Sizes, sizes
from specs.domain import SIDES, Side
from specs.run_file import RunFile


@dataclass(frozen=True, slots=True)
class EngineForecast:
    """What one engine will have to do.

    Attributes:
        load: a dialogue's, of all roles that it plays.
        tokens_per_s: of one replica; None where nobody knows.
        seconds: until it is done with all dialogues, never waiting for the other side.
        gpu_hours, cost: while the run lasts; None where that is not known.
    """

    name: str
    load: Foreseen
    replicas: int
    tokens_per_s: float | None
    seconds: float | None
    gpu_hours: float | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will take.

    Attributes:
        sizes: with `auto` settled.
        seconds: until the last dialogue is done, without start-up; None where not known.
    """

    sizes: Sizes
    engines: tuple[EngineForecast, ...]
    seconds: float | None

    @property
    def gpu_hours(self) -> float:
        """Of all engines."""
        return sum(one.gpu_hours or 0.0 for one in self.engines)

    @property
    def cost(self) -> float | None:
        """Of all GPUs; None where there are none, or a price is not known."""
        costs = [one.cost for one in self.engines if one.gpu_hours]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if known and len(known) == len(costs) else None


def roles_of(run: RunFile) -> dict[str, list[Side]]:
    """Return the sides that each speaking engine plays; none for a manager alone."""
    found: dict[str, list[Side]] = {name: [] for name in run.speaking_engines}
    for side in SIDES:
        found[getattr(run.roles, side)].append(side)
    return found


def forecast(
    run: RunFile,
    foreseen: Mapping[Side, Foreseen],
    measured: Mapping[str, float],
    nodes: Nodes,
    dialogues: int,
) -> Forecast:
    """Return what playing so many dialogues will take.

    Args:
        foreseen: of a dialogue, by side.
        measured: tokens a second of one replica, by engine, where the run file says nothing.
        dialogues: that are still to be played.
    """
    engines = {name: run.engines[name] for name in run.speaking_engines}
    loads = {
        name: total(foreseen[side] for side in sides if side in foreseen)
        for name, sides in roles_of(run).items()
    }
    speeds = {name: engine.tokens_per_s or measured.get(name) for name, engine in engines.items()}
    known = all(speeds[name] for name, load in loads.items() if load.completion_tokens)
    work = {
        # Without speeds, models are taken for equally fast.
        name: dialogues * load.completion_tokens / ((known and speeds[name]) or 1.0)
        for name, load in loads.items()
    }
    useful = {
        name: max(1, math.ceil(dialogues / engine.max_running)) for name, engine in engines.items()
    }
    found = sizes(run, shares(engines, work, useful, nodes))
    asked = {name: (engine, found.replicas[name][1]) for name, engine in engines.items()}
    room = places(asked, nodes)
    most = {name: max(found.replicas[name][0], room[name]) for name in engines}
    seconds = max((work[name] / most[name] for name in engines), default=0.0) if known else None
    told = []
    for name, engine in engines.items():
        own = work[name] / most[name] if known else None
        hours = seconds / 3600 * most[name] * (engine.gpus or 0) if seconds is not None else None
        price = run.gpu_hour_price(name)
        cost = hours * price if hours is not None and price is not None else None
        told.append(EngineForecast(name, loads[name], most[name], speeds[name], own, hours, cost))
    return Forecast(found, tuple(told), seconds)
