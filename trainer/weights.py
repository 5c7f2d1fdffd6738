"""The model that is trained: a base as it is, or quantized to 4 bits, with adapters on its layers.

Nothing that comes with a model is ever executed (`trust_remote_code` stays off).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specs.errors import DuologueError
from specs.processor import cpu_dtype
from specs.run_file import TrainSection

COMMIT = re.compile(r"[0-9a-f]{40}")
"""How a hub names its commits."""

_HEAD = 1 << 20
_FAILURES = (OSError, ValueError, RuntimeError, ImportError, KeyError)


def quiet() -> None:
    """Keep libraries from printing bars and hints; call it before they load a model."""
    from transformers.utils import logging as transformers_logging

    for name in ("bitsandbytes", "torchao", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)
    told: Any = transformers_logging
    told.set_verbosity_error()
    told.disable_progress_bar()


def frozen_dtype(gpu: bool) -> Any:
    """Return the type to hold frozen weights in: bfloat16, or what a device without it is fast in.

    That is float16 on a GPU, and float32 on a CPU.
    """
    import torch

    if gpu:
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return getattr(torch, cpu_dtype(torch.backends.cpu.get_cpu_capability()))


def build(section: TrainSection, place: Path | str, gpu: bool) -> Any:
    """Return the model to train, on this process's device.

    A quantized or a LoRA base is frozen (`frozen_dtype`), its adapters are in float32. (peft's
    `prepare_model_for_kbit_training` would hold the base's norms, embeddings and head in float32;
    norms compute in float32 anyway, and the head is the largest product of a small model.) With
    `full` all weights are float32.

    Args:
        place: the base model's folder or hub id.

    Raises:
        DuologueError: the model cannot be loaded, or adapters cannot be put on it.
    """
    try:
        model = _base(section, place, gpu)
        if _checkpointing(section, gpu):
            model.gradient_checkpointing_enable({"use_reentrant": False})
            if section.method != "full":
                model.enable_input_require_grads()
        return model if section.method == "full" else _adapted(section, model)
    except _FAILURES as error:
        raise DuologueError(f"the model {place} cannot be trained: {error}") from error


def _checkpointing(section: TrainSection, gpu: bool) -> bool:
    return gpu if section.gradient_checkpointing is None else section.gradient_checkpointing


def _base(section: TrainSection, place: Path | str, gpu: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    full = section.method == "full"
    options: dict[str, Any] = {
        "dtype": torch.float32 if full else frozen_dtype(gpu),
        "device_map": {"": torch.cuda.current_device() if gpu else "cpu"},
        "revision": section.revision if isinstance(place, str) else None,
    }
    if section.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=frozen_dtype(gpu),
        )
    model = AutoModelForCausalLM.from_pretrained(str(place), **options)
    model.config.use_cache = False
    if section.method == "qlora" and not gpu:
        _keep_unpacked(model)
    return model


def _keep_unpacked(model: Any) -> None:
    """Keep bitsandbytes from packing weights for inference when the model is evaluated.

    On CPUs with AVX512-BF16 its first evaluation packs them for good, and its product of packed
    weights passes no gradient on: training would go on, without a word, on wrong gradients.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _adapted(section: TrainSection, model: Any) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    alpha = int(section.alpha) if float(section.alpha).is_integer() else section.alpha
    targets = section.targets if isinstance(section.targets, str) else list(section.targets)
    config = LoraConfig(
        r=section.rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft takes any number
        lora_dropout=section.dropout,
        target_modules=targets,
        bias="none",
        task_type=TaskType.CAUSAL_LM,
    )
    return get_peft_model(model, config)


def skeleton(place: Path | str, revision: str | None) -> tuple[Any, list[str]]:
    """Return a model's configuration and the names of its linear layers, without its weights.

    Raises:
        DuologueError: it cannot be had, or is no causal language model that transformers knows.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    chosen = revision if isinstance(place, str) else None
    try:
        config = AutoConfig.from_pretrained(str(place), revision=chosen)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except OSError as error:  # no such folder or id, no network, no leave
        raise DuologueError(f"{place} cannot be had: {error}") from error
    except _FAILURES as error:
        raise DuologueError(f"{place} is no causal language model: {error}") from error
    linear = [name for name, one in model.named_modules() if isinstance(one, torch.nn.Linear)]
    return config, linear


def commit(name: str, revision: str | None = None) -> str | None:
    """Return the commit that a hub's model is loaded from; None where it cannot be known.

    The hub is asked where it can be, and otherwise what was fetched before.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from transformers.utils.hub import cached_file, extract_commit_hash

    try:
        file = cached_file(name, "config.json", revision=revision)
    except _FAILURES:
        return None
    return extract_commit_hash(file, None)


def hub_digest(name: str, revision: str | None) -> str:
    """Return what tells a hub's model at a revision from any other; weights are not fetched."""
    return hashlib.sha256(f"{name}@{revision or ''}".encode()).hexdigest()


def base_digest(place: Path | str, revision: str | None = None) -> str:
    """Return what tells a base model from any other: of its configuration and its weights' heads.

    A hub's model goes by its name and commit: a branch moves on, and so may a tag. Where the commit
    cannot be known it goes by the revision as it was asked for.
    """
    if isinstance(place, str):
        return hub_digest(place, commit(place, revision) or revision)
    state = hashlib.sha256()
    for file in sorted([place / "config.json", *place.glob("*.safetensors")]):
        if not file.is_file():
            continue
        size = file.stat().st_size
        state.update(f"{file.name}:{size}".encode())
        with file.open("rb") as stream:
            state.update(stream.read(_HEAD))
            stream.seek(max(0, size - _HEAD))
            state.update(stream.read(_HEAD))
    return state.hexdigest()


def merge(place: Path | str, revision: str | None, adapter: Path, out: Path) -> None:
    """Write a base model with an adapter's weights added to its own, in bfloat16 safetensors.

    The base is the one before quantization: adding to 4-bit weights would round the adapter away.

    Args:
        out: a folder that is not there yet; it appears whole.

    Raises:
        DuologueError: it cannot be loaded or written.
    """
    import shutil

    quiet()
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    partial = out.with_name(f"_{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    chosen = revision if isinstance(place, str) else None
    try:
        base = AutoModelForCausalLM.from_pretrained(
            str(place), dtype=torch.bfloat16, revision=chosen
        )
        merged: Any = PeftModel.from_pretrained(base, str(adapter))
        merged.merge_and_unload(safe_merge=True).save_pretrained(partial)
        AutoTokenizer.from_pretrained(str(adapter)).save_pretrained(partial)
        partial.rename(out)
    except _FAILURES as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DuologueError(f"{out}: the merged model cannot be written: {error}") from error


def unmatched(targets: Sequence[str], layers: Sequence[str]) -> list[str]:
    """Return the targets that name no layer, by its whole name or by its last parts."""
    return [
        target
        for target in targets
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers)
    ]
