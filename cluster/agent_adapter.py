"""The adapter that plays a run's agent: found, and held against the engine that is to carry it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.round_note import read_note
from cluster.run_folder import RunFolder
from specs.engine_section import EngineSection
from specs.errors import Finding, InputError, Where
from specs.parts import Folder
from specs.run_file import RunFile
from trainer.adapter import MANIFEST, check_adapter, load_manifest, trained_as


def adapter_folder(place: str) -> Path:
    """Return an adapter's folder, given it, its round's folder, or its run's.

    Of a run, it is that of the last round that was promoted, else that of the first.

    Raises:
        InputError: when none of them holds an adapter.
    """
    for folder in (Path(place), Path(place) / "adapter", *_of_rounds(place)):
        if (folder / MANIFEST).is_file():
            return folder.resolve()
    hint = "Name an adapter's folder, such as runs/NAME/round-0/adapter, or its run's folder."
    raise InputError([Finding(Where(place), f"holds no adapter: no {MANIFEST}", hint)])


def _of_rounds(place: str) -> list[Path]:
    """Return where a run's adapters may be, the first to be taken first."""
    rounds = sorted(Path(place).glob("round-*"), key=lambda one: one.name.zfill(12), reverse=True)
    verdicts = {one: read_note(Folder.of(one)).verdict for one in rounds if one.is_dir()}
    good = [one for one, verdict in verdicts.items() if verdict is not None and verdict.promoted]
    return [one / "adapter" for one in (*good, Path(place) / "round-0")]


def with_adapter(run: RunFile) -> RunFile:
    """Return the run with its agent's adapter by its whole path, where it has one.

    Fully trained weights are a model of their own and take the place of the engine's.

    Raises:
        InputError: there is no such adapter, or it does not fit the agent's model.
    """
    from cluster.evaluation_plan import digest_of

    if run.roles.adapter is None:
        return run
    folder, name = adapter_folder(run.roles.adapter), run.roles.agent
    engine = run.engines[name]
    update: dict[str, Any] = {"roles": run.roles.model_copy(update={"adapter": str(folder)})}
    if engine.kind == "vllm":
        findings = check_adapter(folder, engine.model, digest_of(engine))
        whole = not findings and load_manifest(folder).get("method") == "full"
        if whole and name in (run.roles.user, run.roles.manager):
            message = f"is a model of its own, and the engine {name} plays other roles, too"
            hint = "Give the agent an engine of its own (roles.agent)."
            findings.append(Finding(Where(str(folder)), message, hint))
        if findings:
            raise InputError(findings)
        if whole:
            engine = engine.model_copy(update={"model": str(folder), "revision": None})
            update["engines"] = {**run.engines, name: engine}
    return run.model_copy(update=update)


def unfit(run: RunFile) -> list[Finding]:
    """Return why a run's agent cannot be played by the adapter that it asks for."""
    try:
        with_adapter(run)
    except InputError as error:
        return list(error.findings)
    return []


def played_in(run: RunFile, folder: RunFolder) -> RunFile:
    """Return a run as it is played in the round that its folder is about.

    The first round's agent is the run file's; that of a later one was noted when the round began
    (`cluster.rounds`).

    Raises:
        InputError: as `with_adapter`; the round has not begun; its adapter was trained anew.
    """
    if not folder.number:
        return with_adapter(run)
    where, player = Where(folder.round().path), folder.note().player
    if player is None:
        hint = "duologue run RUN.toml begins it, when the round before is over."
        raise InputError([Finding(where, f"round {folder.number} has not begun", hint)])
    if player.of is None:
        return with_adapter(run)
    place = folder.folder.file(player.adapter)
    if trained_as(load_manifest(Path(place))) != player.training:
        message = f"is played by {place}, which has been trained anew since"
        hint = "Go on under another name (run.name), or start over (--fresh, without run.round)."
        raise InputError([Finding(where, message, hint)])
    return with_adapter(playing(run, place))


def playing(run: RunFile, adapter: str) -> RunFile:
    """Return the run with this adapter as its agent."""
    return run.model_copy(update={"roles": run.roles.model_copy(update={"adapter": adapter})})


def carried(run: RunFile, engine: str) -> str:
    """Return the folder of the adapter that an engine has to load beside its model; else empty."""
    section: EngineSection = run.engines[engine]
    adapter = run.roles.adapter or ""
    whole = section.model == adapter
    return "" if engine != run.roles.agent or section.kind != "vllm" or whole else adapter
