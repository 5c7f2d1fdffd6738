"""The adapter that plays a run's agent: found, and held against the engine that is to carry it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from specs.engine_section import EngineSection
from specs.errors import Finding, InputError, Where
from specs.run_file import RunFile
from trainer.adapter import MANIFEST, check_adapter, load_manifest


def adapter_folder(place: str) -> Path:
    """Return an adapter's folder, given it or the folder of its run.

    Raises:
        InputError: when neither holds an adapter.
    """
    for folder in (Path(place), Path(place) / "round-0" / "adapter"):
        if (folder / MANIFEST).is_file():
            return folder.resolve()
    hint = "Name an adapter's folder, such as runs/NAME/round-0/adapter, or its run's folder."
    raise InputError([Finding(Where(place), f"holds no adapter: no {MANIFEST}", hint)])


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


def carried(run: RunFile, engine: str) -> str:
    """Return the folder of the adapter that an engine has to load beside its model; else empty."""
    section: EngineSection = run.engines[engine]
    adapter = run.roles.adapter or ""
    whole = section.model == adapter
    return "" if engine != run.roles.agent or section.kind != "vllm" or whole else adapter
