"""Which files of dialogues are read, and what is said of those that are not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specs.errors import InputError
from specs.parts import Folder
from trainer.chat_file import ChatFile

USER = {"role": "user", "content": "Hi"}


def written(folder: Path, *rows: Any) -> ChatFile:
    pq.write_table(pa.table({"messages": list(rows)}), folder / "mine.parquet")
    return ChatFile.open(Folder.of(folder), "mine.parquet", own=False)


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def test_a_list_of_texts_is_one_text(tmp_path: Path) -> None:
    listed = [
        {"role": "user", "content": parts("Is there ", "tea?")},
        {"role": "assistant", "content": parts("Yes.")},
        {"role": "user", "content": []},
    ]
    (dialogue,) = written(tmp_path, listed).dialogues()
    assert [one.content for one in dialogue.messages] == ["Is there tea?", "Yes.", ""]
    assert [one.train for one in dialogue.messages] == [False, True, False]


def test_texts_may_be_categories(tmp_path: Path) -> None:
    texts = pa.array(["user", "assistant"]).dictionary_encode()
    messages = pa.StructArray.from_arrays([texts, texts], ["role", "content"])
    table = pa.table({"messages": pa.ListArray.from_arrays([0, 2], messages)})
    pq.write_table(table, tmp_path / "mine.parquet")
    (dialogue,) = ChatFile.open(Folder.of(tmp_path), "mine.parquet", own=False).dialogues()
    assert [one.content for one in dialogue.messages] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (None, "`messages` is null"),
        ([USER, None], "message 1 is null"),
        ([USER, {"role": None, "content": "Hm"}], "the role None"),
        ([USER, {"role": "robot", "content": "Hm"}], "the role 'robot'"),
        (
            [USER, {"role": "assistant", "content": None}],
            "message 1: its content is no text but nu",
        ),
        (
            [USER, {"role": "assistant", "content": None, "tool_calls": ["search"]}],
            "message 1 has `tool_calls` and no content: a call stands in the content",
        ),
    ],
)
def test_a_message_without_text_or_role_is_named_by_its_row(
    tmp_path: Path, row: Any, message: str
) -> None:
    made = written(tmp_path, [USER], row)
    with pytest.raises(InputError) as caught:
        list(made.dialogues())
    assert f"mine.parquet: error: row 1: {message}" in str(caught.value)
    assert "list of structs of `role`" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (7, "no text but 7"),
        (b"Hi", "no text but b'Hi'"),
        ({"text": "Hi"}, "no text but {'text': 'Hi'}"),
        ([{"type": "image_url", "url": "x"}], "no text but a part of the type 'image_url'"),
        ([{"type": "text", "text": None}], "no text but a part of the type 'text'"),
        ([{"type": "text", "words": "Hi"}], "no text but a part of the type 'text'"),
        ([None], "no text but null"),
    ],
)
def test_a_content_of_another_kind_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    made = written(tmp_path, [{"role": "user", "content": content}])
    with pytest.raises(InputError, match="row 0: message 0: its content is " + re.escape(message)):
        list(made.dialogues())
