"""A model with random weights, a tokenizer of bytes, and a run's curated folder of small chats."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from specs.parts import Folder
from specs.records import SCHEMA_VERSION, curated_schema
from trainer.adapter import publish

TEAS = ("green", "black", "white", "mint")


def write_model(folder: Path, window: int = 512, hidden: int = 32) -> Path:
    """Write a two-layer Llama of 256 bytes and two marks."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bytes_, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=window,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def chat(number: int) -> list[dict[str, Any]]:
    """Return the messages of a dialogue about tea."""
    draws = random.Random(number)
    messages = [{"role": "system", "content": "You sell tea.", "train": False}]
    for _ in range(draws.randint(1, 3)):
        tea = draws.choice(TEAS)
        said = f"I would like {tea} tea."
        understood = json.dumps({"intent": "order", "slots": {"tea": tea}})
        answer = f"{understood}\nHere is your {tea} tea."
        messages.append({"role": "user", "content": said, "train": False})
        messages.append({"role": "assistant", "content": answer, "train": True})
    return messages


def write_chats(folder: Path, name: str, chats: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Write a file in the curated format."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"walk_id": f"{name}-{i}", "messages": list(messages), "path": [], "doc_ids": []}
        for i, messages in enumerate(chats)
    ]
    table = pa.Table.from_pylist(rows, schema=curated_schema())
    pq.write_table(table, folder / f"{name}.parquet")


def write_run(run: Path, dialogues: int, validation: int = 4) -> Path:
    """Write what `train` needs of a run: its `run.json` and its curated files."""
    curated = run / "round-0" / "curated"
    write_chats(curated, "train", [chat(number) for number in range(dialogues)])
    held = [chat(number) for number in range(dialogues, dialogues + validation)]
    write_chats(curated, "validation", held)
    manifest = {"format": "duologue-run", "schema_version": SCHEMA_VERSION, "run_file": {}}
    (run / "run.json").write_text(json.dumps(manifest))
    return run


def write_adapter(folder: Path, **manifest: Any) -> Path:
    """Write what an adapter's folder holds, as far as it is looked at before it is loaded."""
    staged = Folder.of(folder.with_name("_staged"))
    staged.create()
    whole = manifest["method"] == "full"
    staged.write_bytes("config.json" if whole else "adapter_config.json", b"{}")
    staged.write_bytes("adapter_model.safetensors", b"")
    publish(staged, Folder.of(folder), manifest)
    return folder
