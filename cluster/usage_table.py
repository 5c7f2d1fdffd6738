"""What a generation took, in words and tables: for the terminal, and for the report's page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from actors.laps import PHASES
from cluster.advice import advise, bottleneck
from cluster.progress import duration
from cluster.usage import EngineUse, ReplicaUse, Session

ENGINE_HEAD = (
    "engine",
    "replicas",
    "tokens/s",
    "a replica",
    "in use",
    "full",
    "waiting",
    "prefix cache",
    "KV cache",
)
"""Of the engines' table; GPU-hours and their cost follow where there are any."""

NOT_SHOWN = 0.005
"""Share of a turn's time below which a phase is left out of the line."""


def session_lines(session: Session, earlier: Sequence[Session] = ()) -> list[str]:
    """Return the final table of a start.

    Args:
        earlier: the starts before it, which are added up in the last line.
    """
    lines = [_wall(session)]
    if session.walkers.all_turns:
        lines += _aligned([engine_head(session), *engine_rows(session)])
        lines += [f"  {text}" for text in (*role_speeds(session), *where_time_went(session))]
        lines += [f"  {text}" for text in trouble(session)]
    if held := bottleneck(session):
        lines.append(f"what held it up: {held}")
    lines += [f"  {advice}" for advice in advise(session)]
    if earlier:
        lines.append(all_together([*earlier, session]))
    return lines


def _wall(session: Session) -> str:
    phases = (
        ("starting", session.starting_s),
        ("playing", session.playing_s),
        ("stopping", session.stopping_s),
    )
    parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in phases if seconds >= 0.5)
    walkers = session.walkers
    made = f"{walkers.dialogues:,} dialogues, {walkers.all_turns:,} turns"
    if session.playing_s and walkers.all_turns:
        made += f" ({figure(walkers.all_turns / session.playing_s)} a second)"
    return f"it took {duration(session.wall_s)} ({parts}): {made}"


def all_together(sessions: Sequence[Session]) -> str:
    """Return one line about all starts of a run."""
    parts = [f"all {len(sessions)} starts together: {duration(sum(s.wall_s for s in sessions))}"]
    parts.append(f"{sum(session.walkers.dialogues for session in sessions):,} dialogues")
    if hours := sum(session.gpu_hours for session in sessions):
        parts.append(f"{figure(hours)} GPU-hours")
    if price := cost(sessions):
        parts.append(price)
    return ", ".join(parts)


def cost(sessions: Sequence[Session]) -> str:
    """Return what the GPUs of sessions cost; empty where there are none, or no price is known."""
    of = [session for session in sessions if session.gpu_hours]
    known = [session.cost for session in of if session.cost is not None]
    if not known or len(known) < len(of):
        return ""
    currencies = {session.currency for session in of}
    return money(sum(known), currencies.pop()) if len(currencies) == 1 else ""


# -- engines


def engine_head(session: Session) -> list[str]:
    """Return the columns of the engines' table."""
    head = [*ENGINE_HEAD]
    if session.gpu_hours:
        head += ["GPU-hours", *([session.currency] if session.cost is not None else [])]
    return head


def engine_rows(session: Session) -> list[list[str]]:
    """Return a row for each engine."""
    rows = []
    for name, engine in session.engines.items():
        speed = engine.total("completion_tokens") / max(session.playing_s, 1e-9)
        row = [
            name,
            f"{len(engine.replicas)}",
            figure(speed),
            figure(_each(engine)),
            *_use(engine),
        ]
        if session.gpu_hours:
            row.append(figure(engine.gpu_hours))
            if session.cost is not None:
                row.append(f"{engine.cost or 0.0:,.2f}")
        rows.append(row)
    return rows


def _each(engine: EngineUse) -> float:
    """Return the tokens that one replica wrote in a second of being up."""
    up = engine.total("up_s")
    return engine.total("completion_tokens") / up if up else 0.0


def _use(engine: EngineUse | ReplicaUse) -> list[str]:
    total, read = _totals(engine), _totals(engine)["prompt_tokens"]
    up = total["up_s"] or 1.0
    return [
        f"{total['load_s'] / up:.0%}",
        f"{total['full_s'] / up:.0%}",
        figure(total["waiting_s"] / up),
        f"{total['cached_tokens'] / read:.0%}" if read else "-",
        f"{total['kv_s'] / up:.0%}" if total["kv_s"] else "-",
    ]


def _totals(of: EngineUse | ReplicaUse) -> dict[str, float]:
    names = ("prompt_tokens", "cached_tokens", "up_s", "load_s", "full_s", "waiting_s", "kv_s")
    if isinstance(of, EngineUse):
        return {name: of.total(name) for name in names}
    return {name: float(getattr(of, name)) for name in names}


REPLICA_HEAD = (
    "replica",
    "answers",
    "tokens/s",
    *ENGINE_HEAD[4:],
    "queue",
    "prefill",
    "decode",
)


def replica_rows(session: Session) -> list[list[str]]:
    """Return a row for each replica; the last three are seconds of an answer."""
    rows = []
    for engine in session.engines.values():
        for name, one in sorted(engine.replicas.items()):
            answers = one.finished + one.failed
            speed = one.completion_tokens / one.up_s if one.up_s else 0.0
            times = [
                _seconds(seconds / answers) if answers else "-"
                for seconds in (one.queue_s, one.prefill_s, one.decode_s)
            ]
            rows.append([name, f"{answers:,}", figure(speed), *_use(one), *times])
    return rows


def role_speeds(session: Session) -> Iterator[str]:
    """Yield what each role has written in a second, where one engine plays several."""
    tokens, seconds = session.walkers.tokens, session.playing_s
    if seconds and len(set(session.roles.values())) < len(session.roles):
        speeds = ", ".join(
            f"{role} {figure(tokens.get(role, 0) / seconds)}" for role in session.roles
        )
        if any(tokens.values()):
            yield f"tokens/s by role: {speeds}"


# -- turns


def where_time_went(session: Session) -> Iterator[str]:
    """Yield what the turns of each role took on average, and by what."""
    walkers = session.walkers
    for role, turns in walkers.turns.items():
        whole = walkers.turns_s(role)
        if not turns or not whole:
            continue
        shares = {phase: walkers.phase_s(phase, role) / whole for phase in PHASES}
        told = sorted(shares.items(), key=lambda item: -item[1])
        parts = ", ".join(f"{phase} {share:.0%}" for phase, share in told if share >= NOT_SHOWN)
        article = "a user's" if role == "user" else f"an {role}'s"
        yield f"{article} turn took {_seconds(whole / turns)}: {parts}"


TIME_HEAD = ("turns", "count", "seconds", *PHASES)


def time_rows(session: Session) -> list[list[str]]:
    """Return a row for each role: what its turns took on average, and the share of each phase."""
    walkers, rows = session.walkers, []
    for role, turns in walkers.turns.items():
        whole = walkers.turns_s(role)
        if turns and whole:
            shares = [f"{walkers.phase_s(phase, role) / whole:.1%}" for phase in PHASES]
            rows.append([role, f"{turns:,}", _seconds(whole / turns), *shares])
    return rows


def trouble(session: Session) -> Iterator[str]:
    """Yield what was done more than once, and what walkers and engines suffered."""
    walkers = session.walkers
    again = {
        "for more candidates": walkers.retries.get("candidates", 0),
        "for a repair": walkers.retries.get("repair", 0),
        "because an engine had failed": walkers.retries.get("sent", 0),
    }
    asked = ", ".join(f"{count:,} {why}" for why, count in again.items() if count)
    if asked:
        yield f"asked again: {asked}"
    lost = {
        "dialogues given back": walkers.given_back,
        "requests given up at their deadline": int(
            sum(e.total("overdue") for e in session.engines.values())
        ),
        "preemptions": int(sum(e.total("preemptions") for e in session.engines.values())),
    }
    told = ", ".join(f"{count:,} {what}" for what, count in lost.items() if count)
    if told:
        yield told
    if walkers.seats and walkers.core_share:
        yield (
            f"walkers: {walkers.seats}, with {walkers.core_share:.0%} of a core each "
            f"({walkers.most_core_share:.0%} the busiest), "
            f"{1000 * walkers.cpu_s / walkers.all_turns:.2f} ms of CPU a turn, late by "
            f"{_seconds(walkers.lag_s)} on average and by {_seconds(walkers.longest_lag_s)} at most"
        )


# -- words


def money(amount: float, currency: str) -> str:
    """Return an amount of money."""
    return f"{currency} {amount:,.2f}"


def figure(value: float) -> str:
    """Return a number with three digits or so."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines: the first column to the left, figures to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
