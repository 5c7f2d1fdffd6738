"""Settings of published recipes, under whatever a run file's `train` table sets itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Samarinas et al. 2024, "Simulating Task-Oriented Dialogues with State Transition Graphs and
    # Large Language Models" (SynTOD): QLoRA on all linear layers.
    "synthetic_tod": {
        "method": "qlora",
        "rank": 64,
        "alpha": 16,
        "dropout": 0.1,
        "targets": "all-linear",
        "learning_rate": 2e-4,
        "schedule": "constant",
        "warmup": 0.0,
        "batch": 4,
        "accumulate": 4,
    },
    # Ulmer et al. 2024, "Bootstrapping LLM-based Task-Oriented Dialogue Agents via Self-Talk".
    "self_talk": {
        "method": "lora",
        "rank": 64,
        "learning_rate": 5e-4,
        "weight_decay": 0.01,
        "epochs": 1.0,
    },
}
