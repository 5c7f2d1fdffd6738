"""Which side of a generation was its bottleneck, and what to change: pure, from what it used.

Silent where there is too little to say: a short run, or one that was not measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.outages import more_time, too_many
from cluster.usage import EngineUse, Session

LEAST_S, LEAST_TURNS = 30.0, 100
"""Of playing, below which nothing is said."""

FULL = 0.85
"""Share of an engine's places in use, on average, from which it is the bottleneck."""

IDLE = 0.6
"""Below this, places were free that somebody paid for."""

APART = 0.2
"""By how much two engines differ at least before one is said to wait for the other."""

CORE = 0.85
"""Share of a core from which a walker cannot do more."""

LATE_S = 0.25
"""Mean lateness of a walker's loop from which turns wait for it."""

MUCH = 0.2
"""Share of a turn's time from which something beside the engines is worth a word."""

LOW_HITS = 0.3
LONG_PROMPT = 200
"""Tokens of a prompt from which its prefix is worth keeping."""

KV_FULL = 0.9

ENOUGH = 1.2
"""Dialogues alive for each place, from which on too few of them are not the reason."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What was seen, and what to change; `change` names the run file's key."""

    seen: str
    change: str

    def __str__(self) -> str:
        return f"{self.seen}: {self.change}"


def bottleneck(session: Session) -> str:
    """Return what held a generation up, in a few words; empty where nothing stands out."""
    if not _enough(session):
        return ""
    if _walkers_full(session):
        return "the walkers"
    full = [name for name, engine in session.engines.items() if _load(engine) >= FULL]
    fullest = max(full, key=lambda name: _load(session.engines[name]), default="")
    if fullest:
        return f"{_whose(session, fullest)} engine"
    if slow := _slow_part(session):
        return slow
    idle = all(_load(engine) < IDLE for engine in session.engines.values())
    return "too few dialogues at once" if idle else ""


def advise(session: Session) -> list[Advice]:
    """Return what to change, the most important thing first; nothing of a run too short to tell."""
    if not _enough(session):
        return []
    return [
        *_about_walkers(session),
        *_about_deadlines(session),
        *_about_engines(session),
        *_about_parts(session),
        *_about_caches(session),
        *_about_starting(session),
    ]


def _enough(session: Session) -> bool:
    up = any(engine.total("up_s") for engine in session.engines.values())
    return up and session.playing_s >= LEAST_S and session.walkers.all_turns >= LEAST_TURNS


def _load(engine: EngineUse) -> float:
    return engine.mean("load_s")


def _whose(session: Session, name: str) -> str:
    """Return whose an engine is, as in `the agent's`."""
    roles = [role for role, engine in session.roles.items() if engine == name]
    return f"the {' and '.join(roles)}'s" if roles else f"{name}'s"


# -- walkers


def _walkers_full(session: Session) -> bool:
    walkers = session.walkers
    return walkers.most_core_share >= CORE or walkers.lag_s >= LATE_S


def _about_walkers(session: Session) -> Iterator[Advice]:
    walkers = session.walkers
    if walkers.most_core_share >= CORE:
        yield Advice(
            f"a walker had {walkers.most_core_share:.0%} of a core",
            f"play with more of them (walkers.count, {walkers.seats} now)",
        )
    elif walkers.lag_s >= LATE_S:
        yield Advice(
            f"the walkers' event loops were {walkers.lag_s:.2g} s late on average, with "
            f"{walkers.core_share:.0%} of a core each",
            "give them cores (engines on the CPU take what cpu_cores says), or let each play fewer "
            f"dialogues (walkers.alive, {walkers.alive} now)",
        )


# -- engines


def _about_deadlines(session: Session) -> Iterator[Advice]:
    for name, engine in session.engines.items():
        overdue = int(engine.total("overdue"))
        asked = int(engine.total("finished") + engine.total("failed"))
        if too_many(overdue, asked):
            seen = f"{overdue:,} of {asked:,} requests to {name} were given up at their deadline"
            yield Advice(seen, more_time(name))


def _about_engines(session: Session) -> Iterator[Advice]:
    loads = {name: _load(engine) for name, engine in session.engines.items()}
    fullest, idlest = max(loads, key=loads.__getitem__), min(loads, key=loads.__getitem__)
    if loads[fullest] >= FULL:
        if loads[idlest] < IDLE and loads[fullest] - loads[idlest] >= APART:
            yield _balance(session, fullest, idlest)
        else:
            yield _more(session, fullest)
    elif loads[fullest] < IDLE and not _walkers_full(session) and not _slow_part(session):
        yield from _more_alive(session, loads[fullest])


def _balance(session: Session, full: str, idle: str) -> Advice:
    engines = session.engines
    busy = {name: _load(engines[name]) * _up(session, name) for name in (full, idle)}
    ratio = busy[full] / busy[idle] if busy[idle] else 0.0
    ideal = f"; {ratio:.1f} of {full} to one of {idle} would keep both busy" if ratio else ""
    fewer = f", or {idle} fewer" if len(engines[idle].replicas) > 1 else ""
    return Advice(
        f"{_whose(session, full)} engine had {_load(engines[full]):.0%} of its places in use, and "
        f"{_whose(session, idle)} {_load(engines[idle]):.0%}",
        f"give {full} more replicas (engines.{full}.replicas, {len(engines[full].replicas)} now)"
        f"{fewer}{ideal}",
    )


def _up(session: Session, name: str) -> float:
    """Return how many replicas of an engine were up on average."""
    return session.engines[name].total("up_s") / session.playing_s


def _more(session: Session, name: str) -> Advice:
    engine = session.engines[name]
    seen = f"{_whose(session, name)} engine had {_load(engine):.0%} of its places in use"
    if engine.kind == "openai":
        return Advice(seen, f"if the server bears more, raise engines.{name}.max_running")
    return Advice(
        seen,
        "this is as fast as it gets with what it has; more replicas "
        f"(engines.{name}.replicas, {len(engine.replicas)} now) make it faster",
    )


def _more_alive(session: Session, load: float) -> Iterator[Advice]:
    places = sum(e.max_running * _up(session, name) for name, e in session.engines.items())
    wanted = session.wanted - session.before
    alive = session.walkers.turns_s() / session.playing_s
    seen = f"no engine had more than {load:.0%} of its places in use"
    if alive >= ENOUGH * places:
        return  # they were there, and waited for something that has a word of its own
    if wanted <= places:
        most = f"{wanted:,} dialogues for {places:,.0f} places"
        yield Advice(seen, f"there were only {most}: more (run.dialogues) go nearly as fast")
    elif session.walkers.alive * session.walkers.seats < ENOUGH * places:
        yield Advice(
            f"{seen}, with {alive:,.0f} dialogues at once",
            f"let walkers play more (walkers.alive, {session.walkers.alive} each now)",
        )


# -- what is beside the engines


_PARTS = {
    "retrieval": ("the retrievers", "run more of them (walkers.retrievers)"),
    "tools": ("the domain's tools", "make them answer faster: every turn that calls one waits"),
    "checks": ("the checks", "play with more walkers (walkers.count): checks run in them"),
    "prompt": ("the prompts", "play with more walkers (walkers.count): each tokenizes by itself"),
    "transport": ("the way to the engines", "play with more walkers (walkers.count)"),
    "rest": (
        "sinks and the walkers' event loops",
        "play with more walkers and sinks (walkers.count, walkers.sinks)",
    ),
}


def _shares(session: Session) -> dict[str, float]:
    whole = session.walkers.turns_s()
    return {part: session.walkers.phase_s(part) / whole if whole else 0.0 for part in _PARTS}


def _slow_part(session: Session) -> str:
    shares = _shares(session)
    slowest = max(shares, key=shares.__getitem__)
    return _PARTS[slowest][0] if shares[slowest] >= MUCH else ""


def _about_parts(session: Session) -> Iterator[Advice]:
    if _walkers_full(session):
        return  # everything else is late by that
    for part, share in _shares(session).items():
        if share >= MUCH:
            what, change = _PARTS[part]
            yield Advice(f"{what} took {share:.0%} of a turn's time", change)


# -- caches, and the start


def _about_caches(session: Session) -> Iterator[Advice]:
    for name, engine in session.engines.items():
        if engine.kind != "vllm":
            continue
        requests = engine.total("finished")
        prompt = engine.total("prompt_tokens") / requests if requests else 0.0
        memory = (
            f"engines.{name}.vllm.gpu_memory_utilization"
            if engine.gpus
            else f"engines.{name}.kv_cache_gb"
        )
        if engine.mean("kv_s") >= KV_FULL and engine.total("preemptions"):
            yield Advice(
                f"{name}'s KV cache was {engine.mean('kv_s'):.0%} full, and "
                f"{engine.total('preemptions'):,.0f} requests were put out of it",
                f"give it more memory ({memory}), or fewer places (engines.{name}.max_running)",
            )
        if prompt >= LONG_PROMPT and engine.cache_hits < LOW_HITS:
            yield Advice(
                f"{name}'s prefix cache had {engine.cache_hits:.0%} of what was read",
                f"give it more memory ({memory}), or let fewer dialogues be alive for each place "
                "(walkers.alive), so that a dialogue's last turn is still there at its next",
            )


def _about_starting(session: Session) -> Iterator[Advice]:
    if session.gpu_hours and session.starting_s > session.playing_s:
        share = session.starting_s / session.wall_s
        yield Advice(
            f"{share:.0%} of the time went into starting, with the GPUs held",
            "play more dialogues in one go (run.dialogues, budget.dialogues)",
        )
