"""`duologue plan`: what a run will be like, before anything of it is started.

Its walks and what they cover, the tokens that each side will read and write, the time and the GPUs
that this takes, and whether the cluster has the room.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from actors.engines.models import load_tokenizer, resolve_model
from actors.foresight import Foreseen, foresee
from cluster import walk_sample
from cluster.forecast import EngineForecast, Forecast, forecast
from cluster.generate import open_run_domain, source_of
from cluster.nodes import Nodes, cluster_address, nodes_of, read_launcher
from cluster.placement import bundle, bundle_in_words, misfits
from cluster.progress import duration
from cluster.run_folder import RunFolder
from cluster.sizes import Sizes, in_words, sizes
from cluster.trial import own_trial
from cluster.usage import measured_speed, read_sessions
from cluster.usage_table import money
from specs.domain import SIDES, Domain, Side
from specs.engine_section import EngineSection
from specs.errors import EngineError, Finding, InputError
from specs.run_file import RunFile

WALKS = 500
"""Plans that are walked for the statistics, at most."""


def command(run: RunFile) -> None:
    """Print what a run will be like.

    Raises:
        InputError: with everything that keeps it from being played, after its figures.
    """
    from cluster.agent_adapter import unfit as unfit_adapter
    from cluster.rounds import unfit as unfit_rounds
    from cluster.whole_run import unfit

    domain = open_run_domain(run)
    findings = [*unfit(run), *unfit_rounds(run), *unfit_adapter(run)]
    played = replace(domain, max_turns=run.policy.max_turns or domain.max_turns)
    for line in _walks(run, played):
        click.echo(line)
    foreseen = foresee_run(run, domain)
    nodes, judged_by = _nodes(run)
    made = forecast(run, foreseen, speeds(run), nodes, run.run.dialogues)
    for line in (*_tokens(run, foreseen), *_time(run, made), *_places(run, made, nodes, judged_by)):
        click.echo(line)
    findings += place_findings(run, made, nodes)
    if findings:
        raise InputError(findings)


def settled(run: RunFile, domain: Domain, nodes: Nodes, dialogues: int) -> Sizes:
    """Return how many of everything a run has in this cluster, `auto` being settled.

    Args:
        dialogues: that are still to be played.
    """
    if all(run.engines[name].replicas != "auto" for name in run.speaking_engines):
        return sizes(run)
    return forecast(run, foresee_run(run, domain), speeds(run), nodes, dialogues).sizes


def speeds(run: RunFile) -> dict[str, float]:
    """Return the tokens a second of one replica, by engine, as earlier starts measured them."""
    folder = RunFolder.of(run)
    return measured_speed(read_sessions(folder.round()))


def wanted(run: RunFile, found: Sizes) -> dict[str, tuple[EngineSection, int]]:
    """Return the engines that have to find a place, each with how many replicas."""
    return {name: (run.engines[name], least) for name, (least, _) in found.replicas.items()}


TRIAL = "the trial of what was learned"


def unplaced_later(later: Mapping[str, RunFile], nodes: Nodes) -> list[Finding]:
    """Return why the engines of runs that come behind this one would wait for ever.

    Args:
        later: by what each is, in words.
    """
    return [
        replace(one, message=f"in {what}, {one.message}")
        for what, run in later.items()
        for one in misfits(wanted(run, sizes(run)), nodes)
    ]


def foresee_run(run: RunFile, domain: Domain) -> dict[Side, Foreseen]:
    """Return what each side asks of its engine in a dialogue.

    Raises:
        DuologueError: no dialogue of the domain can be played.
    """
    engines: dict[Side, EngineSection] = {s: run.engines[getattr(run.roles, s)] for s in SIDES}
    tokenizers = {side: _tokenizer(engine) for side, engine in engines.items()}
    turns = run.policy.max_turns or domain.max_turns
    return asyncio.run(foresee(domain, source_of(run), engines, tokenizers, turns))


def place_findings(run: RunFile, made: Forecast, nodes: Nodes) -> list[Finding]:
    """Return why engines or training would wait for ever."""
    from cluster.train import fits_anywhere, training_resources
    from trainer.training import place_findings as unplaced

    found = misfits(wanted(run, made.sizes), nodes)
    if not found and run.rounds.trial:
        found += unplaced_later({TRIAL: own_trial(run)}, nodes)
    if not found and not fits_anywhere(run.train):
        found += unplaced(run.train, training_resources(run, nodes))
    return found


def _tokenizer(engine: EngineSection) -> Any:
    """Return a model's tokenizer where it is on this machine: a plan waits for no hub."""
    if engine.kind != "vllm":
        return None
    with contextlib.suppress(EngineError):
        if isinstance(place := resolve_model(engine.model, engine.revision), str):
            from huggingface_hub import try_to_load_from_cache

            cached = try_to_load_from_cache(
                place, "tokenizer_config.json", revision=engine.revision
            )
            if not isinstance(cached, str):
                return None
        return load_tokenizer(engine.model, engine.revision)
    return None


def _nodes(run: RunFile) -> tuple[Nodes, str]:
    """Return the nodes that the run will have, and how that is known.

    Without an address the cluster of `cluster.launcher` is judged, before it is there.
    """
    launcher, address = run.cluster.launcher, run.cluster.address
    asking = any(bundle(run.engines[name]) for name in run.speaking_engines)
    if cluster_address(address) is None and launcher:
        types, most = read_launcher(Path(launcher))
        return Nodes((), types, most), launcher
    if cluster_address(address) is None and not asking and not run.train.gpus_per_worker:
        cores = float(len(os.sched_getaffinity(0)))  # Ray, which would know of GPUs, takes seconds
        return Nodes(({"CPU": cores},)), "this machine"
    from cluster.session import ray_session

    with ray_session(address):
        return nodes_of(launcher, address), cluster_address(address) or "this machine"


def _walks(run: RunFile, domain: Domain) -> Iterator[str]:
    count = min(run.run.dialogues, WALKS)
    sampled = walk_sample.sample(domain, run.run.seed, count)
    turns, walks = sampled.turns(), sampled.walks
    yield f"{run.run.name}: {run.run.dialogues:,} dialogues of {domain.name}, {run.policy.kind}"
    yield f"  turns a dialogue: {walk_sample.summary(turns)} (over {len(walks)} walks)"
    stops = ", ".join(f"{number / len(walks):.0%} {why}" for why, number in sampled.stops().items())
    yield f"  they stop: {stops}"
    for what, visits in (
        ("intents", walk_sample.intent_visits(domain, walks)),
        ("states", walk_sample.state_visits(domain, walks)),
    ):
        never = [one.name for one in visits if not one.count]
        rare = visits[len(never)] if len(never) < len(visits) else None
        text = f"  {what}: {len(visits) - len(never)} of {len(visits)} come up"
        if rare is not None:
            text += f"; the rarest is {rare.name}, in {rare.walks / len(walks):.1%} of dialogues"
        yield text + (f"; never: {', '.join(never)}" if never else "")
    if domain.documents:
        yield f"  documents: {len(sampled.documents):,} of {len(domain.documents):,}"


def _tokens(run: RunFile, foreseen: Mapping[Side, Foreseen]) -> Iterator[str]:
    yield "tokens, where each turn needs one candidate as long as a reference"
    for side, one in foreseen.items():
        name = getattr(run.roles, side)
        about = "" if one.exact else " (by letters: the tokenizer is not at hand here)"
        yield (
            f"  {side} ({name}): {one.requests:.1f} turns a dialogue, "
            f"{one.prompt_tokens:,.0f} tokens read and {one.completion_tokens:,.0f} written; "
            f"{run.run.dialogues * one.prompt_tokens:,.0f} and "
            f"{run.run.dialogues * one.completion_tokens:,.0f} in all{about}"
        )


def _time(run: RunFile, made: Forecast) -> Iterator[str]:
    yield "time"
    for engine in made.engines:
        yield f"  {_engine_line(engine)}"
    if made.seconds is None:
        missing = [one.name for one in made.engines if one.tokens_per_s is None]
        keys = ", ".join(f"engines.{name}.tokens_per_s" for name in missing)
        yield (
            f"  not known: set {keys}, or play some dialogues first (--set run.dialogues=24), "
            "whose speed is measured"
        )
        return
    yield f"  all dialogues: {duration(made.seconds)} from when the engines are up"
    if made.gpu_hours:
        price = "" if made.cost is None else f", {money(made.cost, run.cluster.currency)}"
        yield f"  {made.gpu_hours:,.1f} GPU-hours{price}"


def _engine_line(engine: EngineForecast) -> str:
    text = f"{engine.name}: {engine.replicas} x"
    if engine.tokens_per_s is not None:
        text += f" {engine.tokens_per_s:,.0f} tokens/s"
    if engine.seconds is not None:
        text += f", {duration(engine.seconds)} of work"
    return text


def _places(run: RunFile, made: Forecast, nodes: Nodes, judged_by: str) -> Iterator[str]:
    yield f"places, as {judged_by} has them"
    for name, (least, most) in made.sizes.replicas.items():
        what = bundle_in_words(run.engines[name]) or "cores as they come"
        yield f"  {name}: {in_words(least, most)} x ({what})"
    section = made.sizes
    yield (
        f"  walkers: {section.walkers} x {section.alive} dialogues; "
        f"sinks: {section.sinks}; retrievers: {section.retrievers}"
    )
    cores = sum(node.get("CPU", 0.0) for node in nodes.there if not node.get("GPU"))
    if cores and section.walkers > cores:
        yield f"  {section.walkers} walkers want a core each; nodes without GPUs have {cores:g}"
