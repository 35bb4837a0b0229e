"""Observations on disk: what a trial computed, step by step, and where two trials are compared.

A row says that at one step, in one phase, a named thing of a certain form (`meta`) had certain bytes (`digest`). Names
and forms are interned, so that a row is 30 bytes however long they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import final

import numpy as np
import numpy.typing as npt
import xxhash

from repro_audit.storage.columns import (
    DIGEST_BYTES,
    ROWS_PER_FLUSH,
    ColumnWriter,
    DigestArray,
    IntArray,
    Rows,
    check_limits,
    open_columns,
)


class Phase(IntEnum):
    """What the training was doing."""

    INIT = 0
    DATA = 1
    FORWARD = 2
    BACKWARD = 3
    OPTIMIZER = 4

    @property
    def label(self) -> str:
        """The phase as reports write it."""
        return self.name.lower()


class Role(IntEnum):
    """What an observation is for. A name has one role in a trace."""

    OUTCOME = 0
    """A result of the program: where it differs, the runs differ."""
    CONTEXT = 1
    """A circumstance (generator states, sample indices): explains a difference, and never is one."""


SETTING, PUT_BACK = "setting.", "put-back."
"""How names begin of circumstances under which an optimizer steps: what is set for a group of its parameters, and what
a resumed training finds before its first step."""

COLUMNS = (
    ("step", np.dtype("<u4")),
    ("phase", np.dtype("u1")),
    ("role", np.dtype("u1")),
    ("name", np.dtype("<u4")),
    ("meta", np.dtype("<u4")),
    ("digest", np.dtype(f"V{DIGEST_BYTES}")),
)
_PACK = Struct(f"<IBBII{DIGEST_BYTES}s").pack


@final
class TraceWriter(ColumnWriter):
    """Appends observations to the trace in a directory, which is made."""

    __slots__ = ()

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, COLUMNS)

    def add(  # noqa: PLR0917 - called for every tensor of every step, where keywords cost a tenth of the call
        self, step: int, phase: int, role: int, name_id: int, meta_id: int, digest: bytes
    ) -> None:
        """Append a row; `digest` has 16 bytes."""
        rows = self._rows
        rows += _PACK(step, phase, role, name_id, meta_id, digest)
        if len(rows) >= self._bytes_per_flush:
            self.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One row of a trace, in words."""

    step: int
    phase: Phase
    role: Role
    name: str
    meta: str
    digest: bytes
    occurrence: int
    """How many rows before it have the same step, phase, role and name."""


@final
@dataclass(slots=True, kw_only=True, eq=False)
class Trace:
    """A trace on disk, read only, its columns mapped rather than loaded."""

    strings: tuple[str, ...]
    step: IntArray
    phase: IntArray
    role: IntArray
    name: IntArray
    """Ids into `strings`; so is `meta`."""
    meta: IntArray
    digest: DigestArray
    _occurrences: IntArray | None = field(default=None, init=False)

    @classmethod
    def open(cls, directory: Path) -> Trace:
        """Map the trace in a directory; rows that were torn by a killed writer are left out.

        Raises:
            InternalError: the directory holds no trace, or one that no writer wrote.
        """
        strings, columns = open_columns(directory, COLUMNS)
        texts = len(strings)
        limits = {"phase": len(Phase), "role": len(Role), "name": texts, "meta": texts}
        check_limits(directory, columns, limits)
        return cls(strings=strings, **columns)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.step)

    def __iter__(self) -> Iterator[Observation]:
        """Every row, in execution order."""
        return self.rows()

    def rows(self, *, phase: Phase | None = None) -> Iterator[Observation]:
        """Every row, or those of one phase, in execution order."""
        wanted = range(len(self)) if phase is None else np.flatnonzero(self.phase == phase).tolist()
        return (self.row(index) for index in wanted)

    def row(self, index: int) -> Observation:
        """The row at an index, counted from the end where negative."""
        if self._occurrences is None:
            self._occurrences = _occurrences(self)
        return Observation(
            step=int(self.step[index]),
            phase=Phase(int(self.phase[index])),
            role=Role(int(self.role[index])),
            name=self.strings[int(self.name[index])],
            meta=self.strings[int(self.meta[index])],
            digest=self.digest[index].tobytes(),
            occurrence=int(self._occurrences[index]),
        )

    def outcome_digest(self) -> str:
        """One digest of all outcomes in order, as 32 hexadecimal digits; equal for equal outcomes only.

        Texts enter by their own digests, not by their ids, which hang on the order in which they were first seen.
        """
        texts = b"".join(
            xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass")) for text in self.strings
        )
        by_id = np.frombuffer(texts, dtype=f"V{DIGEST_BYTES}")
        record = np.dtype(
            [("step", "<u4"), ("phase", "u1"), ("name", "V16"), ("meta", "V16"), ("digest", "V16")]
        )
        total = xxhash.xxh3_128()
        for start in range(0, len(self), ROWS_PER_FLUSH):
            window = slice(start, start + ROWS_PER_FLUSH)
            kept = np.asarray(self.role[window]) == Role.OUTCOME
            block = np.empty(int(kept.sum()), dtype=record)
            block["step"] = self.step[window][kept]
            block["phase"] = self.phase[window][kept]
            block["name"] = by_id[self.name[window][kept]]
            block["meta"] = by_id[self.meta[window][kept]]
            block["digest"] = self.digest[window][kept]
            total.update(block.tobytes())
        return total.hexdigest()


def group_keys(trace: Trace, rows: IntArray | slice, names: IntArray) -> npt.NDArray[np.uint64]:
    """A number a row for its step, phase and name, where `names` gives a name's number by its id.

    Phases fit in 3 bits and steps in 32, which leaves 29 for names: more than any trace holds.
    """
    keys = trace.step[rows].astype(np.uint64)
    keys <<= np.uint64(3)
    keys |= trace.phase[rows]
    keys <<= np.uint64(29)
    keys |= names[trace.name[rows]].astype(np.uint64, copy=False)
    return keys


def count_earlier(keys: npt.NDArray[np.uint64]) -> tuple[Rows, Rows]:
    """Sort keys stably: the order, and for each place in it how many equal keys come before it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.ones(len(keys), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
    places = np.arange(len(keys), dtype=np.int32)
    return order.astype(np.int32), places - np.maximum.accumulate(np.where(starts, places, 0))


def _occurrences(trace: Trace) -> IntArray:
    """`Observation.occurrence` of every row."""
    result = np.empty(len(trace), dtype=np.uint32)
    names = np.arange(len(trace.strings), dtype=np.uint32)
    for role in Role:
        rows = np.flatnonzero(trace.role == role)
        order, earlier = count_earlier(group_keys(trace, rows, names))
        result[rows[order]] = earlier
    return result
