"""The curated examples in the forms that other trainers read, with a card that says what they are.

All three forms use only what their trainers are sure to take: an optional system message, then user
and assistant in turn, the user first. So results and facts (the role `tool` here) become a user's
message that begins with `RESULTS`, and a dialogue that the agent opens begins with the user's
message `OPENING`, as in `specs.chat_template` for templates that want it so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from specs.chat_template import OPENING, RESULTS
from specs.records import dump_json

Form: TypeAlias = Literal["trl", "sharegpt", "openai"]
FORMS: tuple[Form, ...] = ("trl", "sharegpt", "openai")

Plain: TypeAlias = dict[str, str]
"""A message: role and content."""

_GPT = {"system": "system", "user": "human", "assistant": "gpt"}

MARK = "duologue-export"
"""Stands in the card, so that a folder is known for an export."""


def plain(messages: Iterable[Mapping[str, Any]]) -> list[Plain]:
    """Return messages in the roles system, user and assistant, in turn, the user first.

    What the agent is not to learn, since it misheard, is left out with what it misheard: not all
    that these forms are for can leave a message's loss out.
    """
    found: list[Plain] = []
    for message in messages:
        role, content = str(message["role"]), str(message["content"])
        if role == "assistant" and message.get("train") is False:
            if found and found[-1]["role"] == "user":
                found.pop()
            continue
        if role == "tool":
            role, content = "user", RESULTS + content
        if role == "assistant" and (not found or found[-1]["role"] == "system"):
            found.append({"role": "user", "content": OPENING})
        if found and found[-1]["role"] == role:
            found[-1]["content"] += "\n" + content
        else:
            found.append({"role": role, "content": content})
    return found


def example(form: Form, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the curated files in a form."""
    messages = plain(row["messages"])
    return {"conversations": _gpt(messages)} if form == "sharegpt" else {"messages": messages}


def pair(form: Form, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of `preference.parquet` in a form: DPO as the form's trainers read it."""
    prompt = plain(row["prompt"])
    if prompt[-1]["role"] != "user":  # the agent opens
        prompt.append({"role": "user", "content": OPENING})
    chosen, rejected = (
        {"role": "assistant", "content": row[key]} for key in ("chosen", "rejected")
    )
    if form == "openai":
        return {
            "input": {"messages": prompt},
            "preferred_output": [chosen],
            "non_preferred_output": [rejected],
        }
    if form == "sharegpt":
        made: dict[str, Any] = {"conversations": _gpt(prompt)}
        return made | {"chosen": _gpt([chosen])[0], "rejected": _gpt([rejected])[0]}
    return {"prompt": prompt, "chosen": [chosen], "rejected": [rejected]}


def _gpt(messages: Sequence[Plain]) -> list[Plain]:
    return [{"from": _GPT[m["role"]], "value": m["content"]} for m in messages]


def jsonl(
    rows: Iterable[Mapping[str, Any]], made: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Iterator[bytes]:
    """Yield each row's line."""
    for row in rows:
        yield (dump_json(made(row)) + "\n").encode()


# -- the card

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

_LOADED = {
    "trl": "TRL's SFTTrainer and DPOTrainer read the files as they are (`messages`; `prompt`, "
    "`chosen`, `rejected`).",
    "sharegpt": "Axolotl (`type: chat_template`) and LLaMA-Factory (`formatting: sharegpt`) read "
    "the files; the roles are `system`, `human` and `gpt`.",
    "openai": "The files are what OpenAI's fine-tuning takes: `messages` for the supervised "
    "method, `input`, `preferred_output` and `non_preferred_output` for preferences.",
}


def card(form: Form, summary: Mapping[str, Any], files: Mapping[str, int]) -> str:
    """Return the dataset card: YAML front matter, then what the data is and how it was made.

    Args:
        summary: of the curation (`summary.json`).
        files: the files' names without ending, with their rows; none that is empty.
    """
    head = {
        "license": "other",
        "license_name": "unknown",
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "task-oriented-dialogue", "duologue"],
        "size_categories": [_size(sum(files.values()))],
        "configs": _configs(files),
    }
    # JSON is YAML, and quotes whatever a name may hold.
    front = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())
    title = f"# Dialogues of the domain {summary['domain']}"
    parts = [
        f"---\n{front}\n---",
        f"<!-- {MARK} {form} {summary['curation'][:12]} -->",
        title,
        _about(form, summary),
        "## Files\n\n" + _table(("file", "rows"), [(f"{k}.jsonl", v) for k, v in files.items()]),
        "## How it was made\n\n" + _table(("step", "dialogues"), _funnel(summary)),
        "## Figures\n\nMeans over the kept dialogues, beside all that were played; quality is "
        "measured on the model's own words.\n\n" + _figures(summary),
        _findings(summary),
        "## Licence\n\nNot stated: it depends on the models that wrote the dialogues and on the "
        "documents they speak of. Set `license` above before you share this.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _size(rows: int) -> str:
    return next((name for most, name in _SIZES if rows < most), "n>1M")


def _configs(files: Mapping[str, int]) -> list[dict[str, Any]]:
    splits = [{"split": name, "path": f"{name}.jsonl"} for name in files if name != "preference"]
    found: list[dict[str, Any]] = [{"config_name": "default", "data_files": splits}]
    if "preference" in files:
        paths = [{"split": "train", "path": "preference.jsonl"}]
        found.append({"config_name": "preference", "data_files": paths})
    return found


def _about(form: Form, summary: Mapping[str, Any]) -> str:
    return (
        "Synthetic task-oriented dialogues: two language models played a user and an assistant "
        f"along a state-transition graph (Duologue, run `{summary['run']}`, policy "
        f"`{summary['policy']}`), and what passed the filters was kept. In each turn the assistant "
        'writes its understanding as JSON (`{"intent": ..., "slots": ...}`), then the calls of '
        "tools as JSON, one a line, then its answer. "
        f"What a call brought, and the facts an answer speaks from, stand in a user's message that "
        f"begins with `{RESULTS.strip()}`; where the assistant opens, the user's first message is "
        f"`{OPENING}`. {_LOADED[form]} The sides are split by seed document: no dialogue of one "
        f"side is about a document that one of another side is about.{_shown(summary)}"
    )


def _shown(summary: Mapping[str, Any]) -> str:
    """Return what is to be said of documents that searches show; earlier curations counted none."""
    train = summary.get("splits", {}).get("train", {})
    if "rows_showing_test_documents" not in train:
        return ""
    return (
        f" Searches may show any document: {train['rows_showing_test_documents']} of the "
        f"{train['rows']} training dialogues show one that a test dialogue is about."
    )


def _funnel(summary: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(step["name"], step["count"]) for step in summary["funnel"]]


def _figures(summary: Mapping[str, Any]) -> str:
    rows = []
    for group in ("measures", "corpus"):
        before, after = summary[group]["before"], summary[group]["after"]
        rows += [(name, _number(after.get(name)), _number(before[name])) for name in before]
    return _table(("measure", "kept", "played"), rows)


def _findings(summary: Mapping[str, Any]) -> str:
    before, after = summary["findings"]["before"], summary["findings"]["after"]
    if not before:
        return "## Inconsistencies\n\nNone were found in what was played."
    rows = [(kind, after.get(kind, 0), count) for kind, count in before.items()]
    return "## Inconsistencies\n\n" + _table(("dialogues with", "kept", "played"), rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
