"""Unpack one GGUF file to a folder: `python -m actors.engines.unpack FILE FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def unpack(file: Path, folder: Path) -> None:
    """Write the model as safetensors in bfloat16, and its tokenizer, to the folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    _mend(tokenizer, file)
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.config.eos_token_id = tokenizer.eos_token_id
    model.config.bos_token_id = tokenizer.bos_token_id
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _mend(tokenizer: Any, file: Path) -> None:
    """Restore what the conversion loses: SmolLM splits numbers into their digits."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(file).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
