"""Chat dialogues out of a Parquet file of the `curated` format: the run's splits, or anybody's.

Of a file that Duologue did not write, only the columns count: `messages` (a list of structs with
`role` and `content`), and `walk_id` where it has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from specs.agent_format import ChatMessage, ChatRole
from specs.errors import Finding, InputError, Where
from specs.parts import Folder, check_file
from specs.records import curated_schema, dump_json
from trainer.evaluation import ChatDialogue
from trainer.scoring import Card

CARD = b"duologue.agent"
"""The key of the agent's card in a file's metadata."""

_COLUMNS = ("messages", "walk_id", "doc_ids")
_BROKEN = (pa.ArrowException, OSError, ValueError)
"""What reading raises: ValueError for bytes that are no UTF-8, or a field that is there twice."""

_CHUNK = 1 << 20
_BATCH_ROWS = 64
_FORMAT = (
    "A dialogue is a row with `messages`, a list of structs of `role` (system, user, assistant, "
    "tool) and `content` (text, or a list of parts of the type text); `walk_id` may name it."
)


class Origin(NamedTuple):
    """A dialogue's id and its seed document's; empty where the file does not have them."""

    walk_id: str
    document: str


@dataclass(frozen=True, slots=True)
class ChatFile:
    """A file of dialogues, which is read anew each time that its dialogues are asked for.

    Attributes:
        card: of its metadata; empty where there is none.
        named: whether it has a column `walk_id`.
        documented: whether it has a column `doc_ids`, of which the first is the seed document's.
    """

    folder: Folder
    name: str
    card: Card
    named: bool
    documented: bool

    @classmethod
    def open(cls, folder: Folder, name: str, own: bool = True) -> ChatFile:
        """Look at a file.

        Args:
            own: Duologue wrote it, so that its schema's version counts.

        Raises:
            FileNotFoundError: there is none.
            InputError: it is no Parquet of that format.
        """
        if own:
            check_file(folder, name, curated_schema())
        try:
            with folder.fs.open_input_file(folder.file(name)) as source:
                schema = pq.read_schema(source)
        except FileNotFoundError:
            raise
        except _BROKEN as error:
            raise _unreadable(folder, name, error) from None
        for column in _COLUMNS:
            if schema.names.count(column) > 1:
                raise _unusable(folder, name, f"has more than one column `{column}`")
        if not _holds_messages(schema):
            raise _unusable(folder, name, "has no column `messages` of roles and contents")
        text = (schema.metadata or {}).get(CARD)
        try:
            card = Card.read(text)
        except (ValueError, AttributeError) as error:
            raise _unusable(folder, name, f"its metadata {CARD.decode()!r}: {error}") from None
        return cls(folder, name, card, "walk_id" in schema.names, _holds_documents(schema))

    @property
    def path(self) -> str:
        """Where it is."""
        return self.folder.file(self.name)

    def digest(self) -> str:
        """Return the SHA-256 of its dialogues, in hexadecimal digits.

        A curation with other settings that keeps the same dialogues leaves other bytes, but nothing
        else to learn from.

        Raises:
            InputError: the file breaks off.
        """
        state = hashlib.sha256(dump_json([self.card.intents, self.card.tools]).encode())
        for row in self._rows(["messages", *self._names()]):
            state.update(dump_json(row).encode())
        return state.hexdigest()

    def dialogues(self) -> Iterator[ChatDialogue]:
        """Yield the dialogues in order.

        Raises:
            InputError: a message that is null, has a role that there is not or no text, a file
                that breaks off, or text that is not UTF-8.
        """
        columns = ["messages", *(["walk_id"] if self.named else [])]
        for number, row in enumerate(self._rows(columns)):
            yield self._dialogue(row, number)

    def origins(self) -> Iterator[Origin]:
        """Yield where each dialogue comes from, in the same order, without reading its messages.

        Raises:
            InputError: the file breaks off, or an id is not UTF-8.
        """
        columns = self._names()
        for row in self._rows(columns) if columns else ():
            documents = row.get("doc_ids") or ("",)
            yield Origin(str(row.get("walk_id") or ""), str(documents[0] or ""))

    def _names(self) -> list[str]:
        there = {"walk_id": self.named, "doc_ids": self.documented}
        return [name for name, is_there in there.items() if is_there]

    def _rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        try:
            with self.folder.fs.open_input_file(self.path) as source:
                for batch in pq.ParquetFile(source).iter_batches(_BATCH_ROWS, columns=columns):
                    yield from batch.to_pylist()
        except _BROKEN as error:
            raise _unreadable(self.folder, self.name, error) from None

    def _dialogue(self, row: dict[str, Any], number: int) -> ChatDialogue:
        try:
            if row["messages"] is None:
                raise ValueError("`messages` is null")
            messages = tuple(_message(one, place) for place, one in enumerate(row["messages"]))
        except ValueError as error:
            raise _unusable(self.folder, self.name, f"row {number}: {error}") from None
        walk_id = row["walk_id"] if self.named else None
        return ChatDialogue(str(walk_id or f"row-{number}"), messages)


def _message(one: Any, place: int) -> ChatMessage:
    """Return a message as it stands in a file; raises ValueError for one that is none."""
    if one is None:
        raise ValueError(f"message {place} is null")
    role = one["role"]
    if role not in get_args(ChatRole):
        raise ValueError(f"the role {role!r}")
    written = role == "assistant" and one.get("train") is not False
    return ChatMessage(role, _text(one, place), written)


def _text(one: Mapping[str, Any], place: int) -> str:
    """Return a message's text; parts of text, as in files of OpenAI's, are one text."""
    content = one["content"]
    if content is None and one.get("tool_calls"):
        raise ValueError(
            f"message {place} has `tool_calls` and no content: a call stands in the content, as "
            '{"call": NAME, "arguments": {...}}'
        )
    texts = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part["text"] if kind == "text" and "text" in part else part
        if not isinstance(text, str):
            odd = f"a part of the type {kind!r}" if kind else "null" if text is None else repr(text)
            raise ValueError(f"message {place}: its content is no text but {odd[:80]}")
        texts.append(text)
    return "".join(texts)


def _holds_messages(schema: pa.Schema) -> bool:
    if "messages" not in schema.names:
        return False
    kind = schema.field("messages").type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    fields = kind.value_type
    names = {"role", "content"}
    return pa.types.is_struct(fields) and names <= {field.name for field in fields}


def _holds_documents(schema: pa.Schema) -> bool:
    if "doc_ids" not in schema.names:
        return False
    kind = schema.field("doc_ids").type
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _unreadable(folder: Folder, name: str, error: Exception) -> InputError:
    if isinstance(error, UnicodeDecodeError):
        return _unusable(folder, name, f"holds text or names that are not UTF-8: {error}")
    reason = str(error).splitlines()[0]
    return _unusable(folder, name, f"is not a readable Parquet file: {reason}")


def _unusable(folder: Folder, name: str, message: str) -> InputError:
    return InputError([Finding(Where(folder.file(name)), message, _FORMAT)])


def twice(dialogues: Sequence[ChatDialogue]) -> str:
    """Return a `walk_id` that two dialogues have; empty when each has its own."""
    seen: set[str] = set()
    for dialogue in dialogues:
        if dialogue.walk_id in seen:
            return dialogue.walk_id
        seen.add(dialogue.walk_id)
    return ""


def file_digest(folder: Folder, name: str) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    state = hashlib.sha256()
    with folder.fs.open_input_stream(folder.file(name)) as stream:
        while data := stream.read(_CHUNK):
            state.update(data)
    return state.hexdigest()
