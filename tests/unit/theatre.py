"""A theatre for runs of several stages: plays, and trains, without what takes minutes.

All but Ray, the engines, training and evaluation is what a user's run has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster import trial, whole_run
from cluster.agent_adapter import played_in
from cluster.generate import Made, open_run_domain, source_of
from cluster.kept import KeptEngines
from cluster.rehearsal import _rehearse
from cluster.run_folder import RunFolder
from specs.parts import durable_indices, write_part
from specs.records import Dialogue
from specs.run_file import PolicySection, RunFile, validate
from tests.unit import tiny_domain
from tests.unit.durable_samples import arrow_rows
from tests.unit.tiny_model import write_adapter
from trainer.adapter import published
from trainer.chat_file import ChatFile

PLAYED = 24


def run_file(place: Path, **settings: Any) -> RunFile:
    sections: dict[str, dict[str, Any]] = {
        "run": {"name": "tea", "dialogues": PLAYED, "out": str(place / "runs")},
        "domain": {"path": str(place / "kiosk")},
        "engines": {"references": {"kind": "reference"}},
        "roles": {"user": "references", "agent": "references"},
        "retrieval": {"embedding": "lexical"},
        "curate": {"test": 0.15, "validation": 0.15},
        "rounds": {"count": 2, "least": 4, "trial": 12},
    }
    for name, section in settings.items():
        sections[name] = {**sections[name], **section}
    return validate(sections, "test")


@dataclass
class Stage:
    """Plays and trains.

    Attributes:
        mute: agents (by their adapter's round; None for the run file's own) who say nothing that
            means anything when they are tried.
        played: by whom, in their order: the run's name, the round, the adapter's round.
    """

    mute: set[int | None] = field(default_factory=set)
    played: list[tuple[str, int, int | None]] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)

    def generate(
        self,
        run: RunFile,
        fresh: bool,
        retry: bool = False,
        kept: KeptEngines | None = None,
        later: Mapping[str, RunFile] | None = None,
        told: bool = False,
    ) -> Made:
        folder = RunFolder.of(run)
        asked = played_in(run, folder)
        adapter = asked.roles.adapter
        who = int(Path(adapter).parent.name.removeprefix("round-")) if adapter else None
        domain = open_run_domain(asked)
        with folder:
            folder.open(run if folder.number else asked, domain, fresh=fresh)
            there = durable_indices(folder.dialogues())
            if missing := range(len(there), run.run.dialogues):
                self.played.append((run.run.name, folder.number, who))
                made = asyncio.run(_rehearse(domain, source_of(run), missing, PolicySection()))
                speak = self.spoken if run.run.name == "tea" else self.tried
                rows = arrow_rows([speak(one, who) for one in made])
                name = f"part-{missing.start}.parquet"
                write_part(folder.dialogues(), name, pa.Table.from_batches([rows]))
        return Made(True, len(missing))

    def spoken(self, dialogue: Dialogue, who: int | None) -> Dialogue:
        return replace(
            dialogue, turns=tuple(replace(turn, source="model") for turn in dialogue.turns)
        )

    def tried(self, dialogue: Dialogue, who: int | None) -> Dialogue:
        spoken = self.spoken(dialogue, who)
        turns = (
            replace(turn, text="Well.") if who in self.mute and turn.role == "agent" else turn
            for turn in spoken.turns
        )
        return replace(spoken, turns=tuple(turns))

    def train(self, run: RunFile, fresh: bool, say: Callable[[str], None]) -> None:
        folder = RunFolder.of(run).round()
        train = ChatFile.open(folder.child("curated"), "train.parquet")
        training = f"of {train.digest()}"
        if (published(folder.child("adapter")) or {}).get("training") != training:
            self.trained.append(run.run.round)
            write_adapter(
                Path(folder.child("adapter").path),
                method="lora", training=training, made="2026-01-01T00:00:00+00:00",
            )  # fmt: skip


def set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plays: bool = True) -> Stage:
    """Put a stage in the place of what plays and trains.

    Args:
        plays: False for the real `generate`, with Ray.
    """
    tiny_domain.write(tmp_path / "kiosk")
    tiny_domain.write(tmp_path / "booth")
    stage = Stage()
    if plays:
        monkeypatch.setattr(whole_run, "generate", stage.generate)
        monkeypatch.setattr(trial, "generate", stage.generate)
        monkeypatch.setattr(whole_run, "_engines", lambda run, say: nullcontext(None))
    monkeypatch.setattr(whole_run, "train_stage", stage.train)
    monkeypatch.setattr(whole_run, "_evaluate", lambda run, fresh, say: None)
    monkeypatch.setattr(whole_run, "unfit", lambda run: [])
    monkeypatch.setattr(whole_run, "_report", lambda run, say: None)
    return stage
