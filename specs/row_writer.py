"""One Parquet file written row by row, in bounded memory, that appears whole.

Invariants: rows are held for one row group at most; nothing stands under the final name before
`publish`, which renames; several files that belong together are closed first and published after.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from specs.parts import TEMPORARY, Folder, storage_error, synchronise

GROUP_ROWS = 512
"""Rows of one row group, the most that are held."""


class RowWriter:
    """Writes rows of one schema to the temporary name of a file; the folder must be there."""

    def __init__(self, folder: Folder, name: str, schema: pa.Schema) -> None:
        """Open the temporary file.

        Raises:
            DuologueError: the disk is full, the folder cannot be written, and the like.
        """
        self.folder, self.name, self.schema = folder, name, schema
        self.rows = 0
        self._held: list[Mapping[str, Any]] = []
        self._temporary = folder.file(f"{TEMPORARY}{name}")
        self._writer: pq.ParquetWriter | None = None
        try:
            self._stream = folder.fs.open_output_stream(self._temporary)
            self._writer = pq.ParquetWriter(self._stream, schema, compression="zstd")
        except OSError as error:
            raise storage_error(error, folder.file(name)) from error

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row; raises DuologueError when the disk is full, and the like."""
        self._held.append(row)
        self.rows += 1
        if len(self._held) >= GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is held and the file's end; safe to call twice."""
        if self._writer is None:
            return
        if self._held:
            self._flush()
        try:
            self._writer.close()
            self._stream.close()
            if self.folder.local:
                synchronise(self._temporary)
        except OSError as error:
            raise storage_error(error, self.folder.file(self.name)) from error
        self._writer = None

    def publish(self) -> None:
        """Give the file its name; what stood there is replaced."""
        self.close()
        try:
            self.folder.fs.move(self._temporary, self.folder.file(self.name))
            if self.folder.local:
                synchronise(self.folder.path)
        except OSError as error:
            raise storage_error(error, self.folder.file(self.name)) from error

    def discard(self) -> None:
        """Delete the temporary file, whatever state it is in."""
        if self._writer is not None:
            with contextlib.suppress(OSError, pa.ArrowException):
                self._writer.close()
            with contextlib.suppress(OSError, pa.ArrowException):
                self._stream.close()
            self._writer = None
        with contextlib.suppress(OSError):
            self.folder.fs.delete_file(self._temporary)

    def _flush(self) -> None:
        assert self._writer is not None, "written after its end"
        table = pa.Table.from_pylist([dict(row) for row in self._held], schema=self.schema)
        self._held = []
        try:
            self._writer.write_table(table)
        except OSError as error:
            raise storage_error(error, self.folder.file(self.name)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.discard()
