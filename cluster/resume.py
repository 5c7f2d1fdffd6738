"""What a run may change when it goes on, and what may stand in its folder: pure functions.

Invariant: in the sections that decide what is said, a key that is not known to be harmless counts
as decisive, so that a new key can never mix two kinds of dialogues in one folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from specs.errors import Finding, InputError, Where
from specs.settings import leaves
from specs.traits import TRAITS

ENGINE_PLACEMENT = frozenset(
    {
        "replicas", "max_running", "gpus", "accelerator", "resources", "cpu_cores", "kv_cache_gb",
        "dtype", "eager",
        "tensor_parallel", "url", "key_env", "requests_per_minute", "start_deadline_s",
        "turn_deadline_s", "hang_s", "tokens_per_s", "gpu_hour_price",
    }
)  # fmt: skip
"""Keys of an engine that decide where and how fast it runs."""

VLLM_DECISIVE = frozenset(
    {"quantization", "load_format", "tokenizer", "hf_overrides", "rope_scaling", "max_model_len"}
)
"""Arguments of vLLM that change the model; all others only change how it is served."""


Section = dict[str, Any]


class _Engine(BaseModel):
    faults: Section = Field(default_factory=dict)
    vllm: Section = Field(default_factory=dict)


class _RunFile(BaseModel):
    run: Section = Field(default_factory=dict)
    policy: Section = Field(default_factory=dict)
    users: dict[str, dict[str, float]] = Field(default_factory=dict)
    roles: dict[str, str | None] = Field(default_factory=dict)
    engines: dict[str, _Engine] = Field(default_factory=dict)
    retrieval: Section = Field(default_factory=dict)


class _Manifest(BaseModel):
    """The shape of `run.json`, as far as anything here relies on it; a key may be missing."""

    domain: Section = Field(default_factory=dict)
    run_file: _RunFile = Field(default_factory=_RunFile)
    resumed: list[Any] = Field(default_factory=list)
    starts: int = 0


def misshapen(content: Mapping[str, Any]) -> str:
    """Return what of a `run.json` has not the shape that it was written with, or nothing."""
    try:
        _Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return ""


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value is not what the folder's dialogues were made with."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        old, new = _shown(self.old, self.new)
        return f"{self.key} was {old} and is now {new}"


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return what would be said otherwise, from two `run.json` contents.

    Keys that the older content does not have yet are not compared.
    """
    before, after = _said(old), _said(new)
    if after[_TRAINING] and before[_TRAINING] == after[_TRAINING]:
        # The same adapter, wherever its folder has been moved to; fully trained weights are an
        # engine's model.
        places = before.pop(_ADAPTER), after.pop(_ADAPTER)
        for key in [key for key in after if key.endswith(".model")]:
            if (before.get(key), after[key]) == places:
                del after[key]
    return [
        Change(key, before[key], value)
        for key, value in after.items()
        if key in before and before[key] != value
    ]


def _said(content: Mapping[str, Any]) -> dict[str, Any]:
    run_file = content.get("run_file", {})
    said: dict[str, Any] = {
        f"domain.{key}": content["domain"][key]
        for key in ("name", "digest")
        if key in content.get("domain", {})
    }
    if "seed" in run_file.get("run", {}):
        said["run.seed"] = run_file["run"]["seed"]
    said.update(leaves(run_file.get("policy", {}), "policy"))
    # A run from before there were traits was made without them, which is a share of 0.
    shares = run_file.get("users", {}).get("traits", {})
    said.update((f"users.traits.{name}", shares.get(name, 0.0)) for name in TRAITS)
    roles = run_file.get("roles", {})
    said.update(leaves({role: roles.get(role) for role in ("adapter", *roles)}, "roles"))
    said[_TRAINING] = content.get("adapter", "")
    engines = (name for role, name in roles.items() if role != "adapter" and name)
    for name in dict.fromkeys(engines):
        engine = run_file.get("engines", {}).get(name, {})
        said.update(engine_says(f"engines.{name}", engine))
    retrieval = run_file.get("retrieval", {})
    said.update(leaves({k: retrieval[k] for k in retrieval if k not in SERVER}, "retrieval"))
    return said


_MOST, _BEFORE = 80, 30
_ADAPTER, _TRAINING = "roles.adapter", "roles.adapter's training"
SERVER = frozenset({"url", "key_env"})
"""Keys of `retrieval` that say only where it is asked."""


def engine_says(key: str, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an engine's settings decides what it says, and not only where or how fast.

    Args:
        key: under which the settings stand, such as `engines.cpu`.
    """
    said = {name: value for name, value in engine.items() if name not in ENGINE_PLACEMENT}
    faults, vllm = said.pop("faults", None), said.pop("vllm", None)
    found = dict(leaves(said, key))
    if faults is not None and "garbage" in faults:
        found[f"{key}.faults.garbage"] = faults["garbage"]
    if vllm is not None:
        found.update({f"{key}.vllm.{name}": vllm.get(name) for name in sorted(VLLM_DECISIVE)})
    return found


def refuse_changes(found: list[Change], place: str, name: str) -> None:
    """Refuse to go on in a folder whose dialogues were made from something else.

    Raises:
        InputError: with a finding for each changed key.
    """
    if not found:
        return
    ways = (
        f"Go on under another name (--set run.name={name}-2), "
        "or delete what is there and start anew (--fresh)."
    )
    *others, last = found
    where = Where(place)
    said = "the dialogues there were made otherwise: "
    raise InputError(
        [Finding(where, f"{said}{change}") for change in others]
        + [Finding(where, f"{said}{last}", ways)]
    )


def _shown(old: Any, new: Any) -> list[str]:
    """Return both as text; of long ones the piece from where they begin to differ."""
    texts = [json.dumps(value, ensure_ascii=False, default=str) for value in (old, new)]
    if max(map(len, texts)) <= _MOST:
        return texts
    pairs = enumerate(zip(*texts, strict=False))
    differ = next((at for at, (one, other) in pairs if one != other), min(map(len, texts)))
    start = max(0, differ - _BEFORE)
    return [
        f"{'...' if start else ''}{text[start : start + _MOST]}"
        f"{'...' if len(text) > start + _MOST else ''}"
        for text in texts
    ]
