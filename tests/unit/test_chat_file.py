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


def put(folder: Path, **columns: pa.Array) -> ChatFile:
    """Write columns, of which `NAME_again` is a second one called NAME."""
    names = [name.removesuffix("_again") for name in columns]
    pq.write_table(pa.Table.from_arrays(list(columns.values()), names), folder / "mine.parquet")
    return ChatFile.open(Folder.of(folder), "mine.parquet", own=False)


def latin(*texts: str) -> pa.Array:
    """Return texts as Latin-1, which a file of another's may hold under the type string."""
    encoded = pa.array([text.encode("latin-1") for text in texts], pa.binary())
    return pa.Array.from_buffers(pa.string(), len(texts), encoded.buffers())


def listed(*values: Any, names: tuple[str, ...] = ("role", "content")) -> pa.Array:
    """Return one row with a message for each value of the fields."""
    structs = pa.StructArray.from_arrays(list(values), names)
    return pa.ListArray.from_arrays([0, len(structs)], structs)


ROW = pa.array([[USER]])


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    made = put(tmp_path, messages=listed(pa.array(["user"]), latin("th\xe9")))
    with pytest.raises(
        InputError, match=r"mine.parquet: error: holds text or names that are not UTF-8: "
    ):
        list(made.dialogues())
    made = put(tmp_path, messages=ROW, walk_id=latin("th\xe9"), doc_ids=pa.array([["a"]]))
    for read in (made.dialogues, made.origins):
        with pytest.raises(InputError, match="holds text or names that are not UTF-8"):
            list(read())
    path = tmp_path / "mine.parquet"
    path.write_bytes(path.read_bytes().replace(b"walk_id", b"walk_i\xe9"))
    with pytest.raises(InputError, match="holds text or names that are not UTF-8"):
        ChatFile.open(made.folder, made.name, own=False)


@pytest.mark.parametrize(
    ("column", "values"),
    [("messages", ROW), ("walk_id", pa.array(["a"])), ("doc_ids", pa.array([["a"]]))],
)
def test_a_column_that_is_there_twice_is_refused(
    tmp_path: Path, column: str, values: pa.Array
) -> None:
    columns = {"messages": ROW, column: values, f"{column}_again": values}
    with pytest.raises(InputError, match=f"error: has more than one column `{column}`"):
        put(tmp_path, **columns)


def test_a_field_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    text = pa.array(["user"])
    made = put(tmp_path, messages=listed(text, text, text, names=("role", "content", "role")))
    with pytest.raises(InputError, match=r"is not a readable Parquet file: .*duplicate"):
        list(made.dialogues())
