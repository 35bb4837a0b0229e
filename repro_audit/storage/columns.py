"""Rows on disk, one file a column: appended by a trial as it runs, memory-mapped by the audit.

Texts are interned, so that a row is as small as its numbers. Nothing here is ever unpickled.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from repro_audit.errors import InternalError

DIGEST_BYTES = 16
ROWS_PER_FLUSH = 1 << 16
"""Rows that are held in memory before they go to disk, and that are read at a time when all of them are."""

IntArray: TypeAlias = "npt.NDArray[np.signedinteger[Any] | np.unsignedinteger[Any]]"
Rows: TypeAlias = "npt.NDArray[np.int32]"
DigestArray: TypeAlias = "npt.NDArray[np.void]"
Columns: TypeAlias = "Sequence[tuple[str, np.dtype[Any]]]"

STRINGS = "strings.jsonl"
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
_fstat = os.fstat
"""As it was before a source showed the program other numbers."""


class ColumnWriter:
    """Appends rows to the columns in a directory, which is made.

    Files are written without buffers of their own, and only by the process that opened them: a DataLoader worker that
    was forked off inherits the object and may call it, to no effect. The program may close our descriptors, as daemons
    close all, and open files of its own that get their numbers. A subclass packs its rows into `_rows`.
    """

    __slots__ = (
        "_bytes_per_flush",
        "_closed",
        "_columns",
        "_directory",
        "_files",
        "_ids",
        "_opened",
        "_pid",
        "_record",
        "_rows",
        "_unwritten",
    )

    def __init__(self, directory: Path, columns: Columns) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        flags = _APPEND | os.O_CREAT | os.O_TRUNC
        self._directory = directory
        self._columns = tuple(name for name, _ in columns)
        self._files = {
            name: os.open(directory / name, flags, 0o600) for name in (STRINGS, *self._columns)
        }
        self._opened = {name: _identity(file) for name, file in self._files.items()}
        self._record = np.dtype(list(columns))
        self._ids: dict[str, int] = {}
        self._unwritten: list[str] = []
        self._rows = bytearray()
        self._bytes_per_flush = ROWS_PER_FLUSH * self._record.itemsize
        self._pid = os.getpid()
        self._closed = False

    def intern(self, text: str) -> int:
        """The id of a text in this directory, the same for equal texts."""
        known = self._ids.get(text)
        if known is not None:
            return known
        new = self._ids[text] = len(self._ids)
        self._unwritten.append(text)
        return new

    @property
    def texts(self) -> Iterable[str]:
        """The interned texts in the order of their ids."""
        return self._ids

    def flush(self) -> None:
        """Write what is held in memory: texts before the rows that name them, so that torn columns still read."""
        if self._closed or os.getpid() != self._pid:
            self._rows.clear()
            return
        if self._unwritten:
            lines = "".join(json.dumps(text) + "\n" for text in self._unwritten)
            _write(self._file(STRINGS), lines.encode("ascii"))
            self._unwritten.clear()
        if self._rows:
            rows = np.frombuffer(bytes(self._rows), dtype=self._record)
            for name in self._columns:
                _write(self._file(name), rows[name].tobytes())
            self._rows.clear()

    def clear(self) -> None:
        """Drop every row so far; ids of texts stay good."""
        self._rows.clear()
        if not self._closed and os.getpid() == self._pid:
            for name in self._columns:
                os.ftruncate(self._file(name), 0)

    def close(self) -> None:
        """Write the rest and close the files; calling it again does nothing."""
        if self._closed:
            return
        self.flush()
        self._closed = True
        for name in self._files:
            if self._is_ours(name):
                os.close(self._files[name])

    def _file(self, name: str) -> int:
        """The descriptor of a file, which is opened again where the program has closed it."""
        if not self._is_ours(name):
            self._files[name] = os.open(self._directory / name, _APPEND)
        return self._files[name]

    def _is_ours(self, name: str) -> bool:
        """Whether the descriptor of a file still is that file's."""
        try:
            return _identity(self._files[name]) == self._opened[name]
        except OSError:
            return False


def _identity(file: int) -> tuple[int, int]:
    """What tells an open file from all others."""
    status = _fstat(file)
    return status.st_dev, status.st_ino


def _write(file: int, data: bytes) -> None:
    """Write all of `data`, also where the kernel takes a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def open_columns(
    directory: Path, columns: Columns
) -> tuple[tuple[str, ...], dict[str, npt.NDArray[Any]]]:
    """Map the columns in a directory, and its texts; rows that were torn by a killed writer are left out.

    Raises:
        InternalError: the directory holds no such columns, or some that no writer wrote.
    """
    try:
        strings = _read_strings(directory / STRINGS)
        rows = min((directory / name).stat().st_size // kind.itemsize for name, kind in columns)
        found = {name: _map_column(directory / name, kind, rows) for name, kind in columns}
    except (OSError, ValueError) as error:
        raise damaged(directory, str(error)) from error
    return strings, found


def check_limits(
    directory: Path, columns: dict[str, npt.NDArray[Any]], limits: dict[str, int]
) -> None:
    """Columns are data from another process: see that every number in them means something.

    Raises:
        InternalError: a column has a value that is not below its limit.
    """
    for name, limit in limits.items():
        if len(columns[name]) and int(columns[name].max()) >= limit:
            raise damaged(directory, f"column {name} has a value that is not below {limit}")


def damaged(directory: Path, why: str) -> InternalError:
    """The error about columns that no writer wrote."""
    return InternalError("A trial's trace can not be read.", where=str(directory), why=why)


def _read_strings(path: Path) -> tuple[str, ...]:
    """The interned texts; a last line without its end was torn, and no whole row names it."""
    lines = path.read_bytes().split(b"\n")[:-1]
    strings = tuple(json.loads(line) for line in lines)
    if not all(isinstance(text, str) for text in strings):
        raise ValueError(f"{path.name} holds something else than texts")
    return strings


def _map_column(path: Path, kind: np.dtype[Any], rows: int) -> npt.NDArray[Any]:
    if not rows:
        return np.empty(0, dtype=kind)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, dtype=kind, count=rows)


def release(column: npt.NDArray[Any]) -> None:
    """Let go of the memory that a mapped column's pages take; they come back from disk when they are read again."""
    owner: object = column
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)
