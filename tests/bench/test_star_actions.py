"""What the agent does next, learned from generated dialogues of a STAR task, in people's dialogues.

DUOLOGUE_STAR=/path/to/star make bench PYTEST_ARGS='-k star_actions'
DUOLOGUE_BENCH_TASKS='weather' DUOLOGUE_BENCH_DIALOGUES=20 make bench PYTEST_ARGS='-k star_actions'

A task's flow is imported as a domain and played by the small model. Its dialogues are written in
the form that STAR's own have here (`trainer.star`): what a query brought back stands behind the
user's words, and the agent first names its action. A state's action is the label of that name, or
of the same words. The adapter is then asked about people's dialogues of the task, none of which it
has seen; the majority is that of the generated dialogues.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from specs.agent_chat import system_message
from specs.loader import open_domain
from specs.parts import SUFFIX, Folder, read_dialogues, write_part
from specs.records import SCHEMA_VERSION, Dialogue, curated_schema, dump_json
from specs.replay import recorded_results
from specs.star.files import Talk, read_talks
from tests.bench.test_scale import commit
from tests.e2e.command import duologue
from tests.ray.command import ROOT
from trainer.chat_file import CARD
from trainer.star import card, chat

STAR = Path(os.environ.get("DUOLOGUE_STAR", ROOT.parent / "shared" / "data" / "star"))
TASKS = os.environ.get("DUOLOGUE_BENCH_TASKS", "weather bank_balance party_rsvp").split()
DIALOGUES = int(os.environ.get("DUOLOGUE_BENCH_DIALOGUES", "40"))
TURNS = int(os.environ.get("DUOLOGUE_BENCH_TURNS", "80"))

GENERATED = """\
[run]
name = "generated"
dialogues = {dialogues}
out = "{out}"
[domain]
path = "{domain}"
[engines.cpu]
kind = "vllm"
model = "smollm2-135m"
window = 2048
max_running = 48
kv_cache_gb = 2.0
[engines.cpu.profile]
form = "script"
persona = false
history = 0
candidates = [1, 4]
repair = false
max_tokens = 60
temperature = 0.6
top_p = 0.9
[roles]
user = "cpu"
agent = "cpu"
"""


def events(dialogue: Dialogue, labels: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield a generated dialogue as STAR has them."""
    for turn in dialogue.turns:
        if turn.role == "user":
            yield {"role": "user", "text": turn.text}
            continue
        for result in recorded_results(turn):
            if isinstance(result.value, Mapping):
                yield {"role": "result", "item": dict(result.value)}
        yield {"role": "agent", "action": labels.get(turn.state, ""), "text": turn.text}


def labels_of(states: Mapping[str, Sequence[str]], talks: Sequence[Talk]) -> dict[str, str]:
    """Return each state's action: the label of its name, or that which people use for its words."""
    said: dict[str, Counter[str]] = {}
    for talk in talks:
        for event in talk.events:
            if event["role"] == "agent" and event.get("action"):
                said.setdefault(event["text"].strip(), Counter())[event["action"]] += 1
    known = {label for counts in said.values() for label in counts}
    found = {}
    for state, references in states.items():
        counts = sum((said.get(one.strip(), Counter()) for one in references), Counter[str]())
        if state in known:
            found[state] = state
        elif counts:
            found[state] = counts.most_common(1)[0][0]
    return found


def write(place: Path, chats: Mapping[str, Sequence[Any]], agent: Mapping[str, Any]) -> None:
    """Write curated files."""
    schema = curated_schema()
    schema = schema.with_metadata({**schema.metadata, CARD: dump_json(agent).encode()})
    folder = Folder.of(place / "round-0" / "curated")
    folder.create()
    for side, found in chats.items():
        rows = [
            {
                "walk_id": f"{side}-{number}",
                "messages": [
                    {"role": m.role, "content": m.content, "train": m.train} for m in messages
                ],
                "path": [],
                "doc_ids": [],
            }
            for number, messages in enumerate(found)
        ]
        write_part(folder, f"{side}{SUFFIX}", pa.Table.from_pylist(rows, schema=schema))
    manifest = {"format": "duologue-run", "schema_version": SCHEMA_VERSION, "name": place.name}
    Folder.of(place).write_bytes("run.json", json.dumps(manifest).encode())


def told(*command: str) -> str:
    done = duologue(*command, seconds=2400)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(
    not STAR.is_dir(), reason="needs the STAR data set: DUOLOGUE_STAR=/path/to/star"
)
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("task", TASKS)
def test_star_actions(task: str, capsys: Any, tmp_path: Path) -> None:
    told("domain", "import", "star", str(STAR / "tasks" / f"{task}.json"), "--out", str(tmp_path))
    run_file = tmp_path / "run.toml"
    domain_place = tmp_path / task
    run_file.write_text(GENERATED.format(dialogues=DIALOGUES, out=tmp_path, domain=domain_place))
    told("generate", str(run_file))

    found = next(STAR / name for name in ("dialogues.jsonl.gz", "dialogues.jsonl"))
    talks = [talk for talk in read_talks(found) if talk.task == task]
    domain = open_domain(str(domain_place))
    states = {
        name: [reference.say.source for reference in state.speech.references]
        for name, state in domain.states.items()
    }
    labels = labels_of(states, talks)
    actions = sorted({e["action"] for t in talks for e in t.events if e.get("action")})
    agent = card(actions, task)
    system = system_message(agent)
    played = [
        one
        for one in read_dialogues(Folder.of(tmp_path / "generated" / "round-0" / "dialogues"))
        if one.ended
    ]
    generated = [chat(tuple(events(one, labels)), system) for one in played]
    people = [chat(talk.events, system) for talk in talks]
    held = max(1, len(generated) // 10)
    sides = {"train": generated[held:], "validation": generated[:held], "test": people}
    write(tmp_path / "learned", sides, agent)
    settings = [f"--set=run.out={tmp_path}", "--set=run.name=learned"]
    star = str(ROOT / "tests" / "bench" / "star.toml")
    told("train", star, *settings, "--set=train.max_steps=80", "--set=train.epochs=4")
    test = tmp_path / "learned" / "round-0" / "curated" / "test.parquet"
    table = told("evaluate", star, *settings, f"--set=evaluate.turns={TURNS}", "--data", str(test))
    unknown = sorted(name for name, said in states.items() if said and name not in labels)
    with capsys.disabled():
        print(
            f"\nnext action, {task}, commit {commit().strip()}: learned from {len(sides['train'])} "
            f"of {DIALOGUES} dialogues, asked about {TURNS} turns of {len(people)} of people's; "
            f"{len(actions)} actions; states without one: {', '.join(unknown) or 'none'}\n{table}"
        )
