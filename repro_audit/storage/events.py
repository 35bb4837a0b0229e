"""What a trial did around the step that broke, on disk: every op, every line of the program's own, every random draw.

A row is one event, in execution order, with what it started from (`before`) and what it left (`after`). A row whose
`before` is the same in two runs and whose `after` is not is where they part. Each process of a trial has a directory
of its own: `main`, and one a DataLoader worker.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import final

import numpy as np

from repro_audit.storage.columns import (
    DIGEST_BYTES,
    ColumnWriter,
    DigestArray,
    IntArray,
    check_limits,
    open_columns,
    release,
)
from repro_audit.storage.trace import Phase


class Kind(IntEnum):
    """What sort of event a row is."""

    OP = 0
    """An operator of torch's ran. `name`: `aten::mm`; `before`: its inputs, Python numbers included; `after`: its
    outputs and what it wrote in place; `meta`: the form of the outputs."""
    LINE = 1
    """A line of the program's own code was executed, or (`name` is `return`) a function returned or yielded.
    `before` and `after`: the values that the line names, before and after it ran, or as `after` the value returned;
    `meta`: what `Line.read` reads. Rows come in the order in which lines finished: those of a function before that of
    the line that calls it. A line over several lines of text has a row for each stretch of it. One that an exception
    left has a row too, one that has not ended yet has none. A `yield` ends its line, which begins again when the
    generator goes on."""
    DRAW = 2
    """A random generator moved. `name`: `python`, `numpy`, `torch`, `cuda:0`, or where the program keeps one of its
    own (`self.rng`, `train.rng`); `before` and `after`: its state; `meta`: `draw` or `seed`, or `made` where one of the
    program's own is seen for the first time, from `NOTHING`. It comes before the row of the line that did it."""
    FILE = 3
    """A file was opened. `name`: its path; `before`: `NOTHING`; `after`: the digest of its content as it was opened,
    `NOTHING` where there was no file; `meta`: `r`, `w` or `rw`."""
    FETCH = 4
    """A DataLoader began to fetch a batch, in this process; all that follows belongs to it, until the next one or the
    matching row with the meta `end`. `name`: `loader.epoch: indices`, which the two runs share whoever fetches (the
    same indices fetched again in an epoch are the same name again); for a dataset without indices
    `loader.epoch: worker W, batch N`, both from 0, and worker 0 for a loader that has none. With the meta `sample`, and
    the index alone as its name, all that follows belongs to that sample of the batch; samples of a dataset without
    indices are numbered in each worker. Neither digest says anything here: both are `NOTHING`."""
    MARK = 5
    """An observation of the trace was made here. `name`: its name; both digests are `NOTHING`."""


COLUMNS = (
    ("kind", np.dtype("u1")),
    ("step", np.dtype("<u4")),
    ("phase", np.dtype("u1")),
    ("name", np.dtype("<u4")),
    ("site", np.dtype("<u4")),
    ("module", np.dtype("<u4")),
    ("meta", np.dtype("<u4")),
    ("before", np.dtype(f"V{DIGEST_BYTES}")),
    ("after", np.dtype(f"V{DIGEST_BYTES}")),
)
_PACK = Struct(f"<BIBIIII{DIGEST_BYTES}s{DIGEST_BYTES}s").pack

NOTHING = bytes(DIGEST_BYTES)
"""Stands for the digest of what is not there."""
TRUNCATED = "truncated"
"""The file beside the columns that says, where it exists, why rows of lines end before the training does."""
DETAIL = "detail"
"""In a trial's directory: that of its processes' directories."""
MAIN = "main"
"""The directory of the process that trains; those of workers are called `worker-LOADER-EPOCH-WORKER`."""


@final
class DetailWriter(ColumnWriter):
    """Appends events to the columns in a directory, which is made."""

    __slots__ = ()

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, COLUMNS)

    def add(  # noqa: PLR0917 - called for every op, where keywords cost a tenth of the call
        self,
        kind: int,
        step: int,
        phase: int,
        name: int,
        site: int,
        module: int,
        meta: int,
        before: bytes,
        after: bytes,
    ) -> None:
        """Append a row: `name`, `site`, `module` and `meta` are ids from `intern`; the digests have 16 bytes."""
        rows = self._rows
        rows += _PACK(kind, step, phase, name, site, module, meta, before, after)
        if len(rows) >= self._bytes_per_flush:
            self.flush()


@dataclass(frozen=True, slots=True)
class Site:
    """A line of the program's own code."""

    file: str
    """Absolute, as the interpreter knows it."""
    line: int
    function: str
    made: bool = False
    """No line of the program's own was running: it is the one that made what ran (a module, an optimizer, a loader)."""
    first: int = 0
    """The line that the function begins on, which tells those of one name apart; 0 where it is not known."""

    def text(self) -> str:
        """The form in which a trace keeps it."""
        return json.dumps([self.file, self.line, self.function, self.made, self.first])

    @classmethod
    def read(cls, text: str) -> Site | None:
        """What `text` wrote; None for the empty text, which stands for no line of the program's own."""
        return cls(*json.loads(text)) if text else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a line of the program's own deals with, as far as its names tell."""

    names: tuple[str, ...]
    """The variables and stored attributes that the digests are of: `x`, `self.scale`."""
    reads: tuple[str, ...]
    """What else it reads, by the functions that it names, in the words of `storage.reads`: a name may stand on a line
    without being used."""
    sets: tuple[str, ...]
    """Those of the names that it assigns to."""

    def text(self) -> str:
        """The form in which a trace keeps it."""
        return json.dumps([self.names, self.reads, self.sets])

    @classmethod
    def read(cls, text: str) -> Line:
        """What `text` wrote; of the empty text, a line without names."""
        names, reads, sets = json.loads(text) if text else ((), (), ())
        return cls(names=tuple(names), reads=tuple(reads), sets=tuple(sets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row, in words."""

    index: int
    kind: Kind
    step: int
    phase: Phase
    name: str
    site: Site | None
    module: str
    """Path of the innermost module that was running, or whose backward it is; empty for none."""
    meta: str
    before: bytes
    after: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detail:
    """The events of one process, their columns mapped rather than loaded."""

    strings: tuple[str, ...]
    kind: IntArray
    step: IntArray
    phase: IntArray
    name: IntArray
    """Ids into `strings`; so are `site`, `module` and `meta`."""
    site: IntArray
    module: IntArray
    meta: IntArray
    before: DigestArray
    after: DigestArray

    @classmethod
    def open(cls, directory: Path) -> Detail:
        """Map the events in a directory.

        Raises:
            InternalError: the directory holds no events, or some that no writer wrote.
        """
        strings, columns = open_columns(directory, COLUMNS)
        texts = len(strings)
        limits = {"kind": len(Kind), "phase": len(Phase)}
        limits |= dict.fromkeys(("name", "site", "module", "meta"), texts)
        check_limits(directory, columns, limits)
        for column in columns.values():
            release(column)
        return cls(strings=strings, **columns)

    def __len__(self) -> int:
        """The number of events."""
        return len(self.kind)

    def event(self, index: int) -> Event:
        """The event at an index."""
        strings = self.strings
        return Event(
            index=index,
            kind=Kind(int(self.kind[index])),
            step=int(self.step[index]),
            phase=Phase(int(self.phase[index])),
            name=strings[int(self.name[index])],
            site=Site.read(strings[int(self.site[index])]),
            module=strings[int(self.module[index])],
            meta=strings[int(self.meta[index])],
            before=self.before[index].tobytes(),
            after=self.after[index].tobytes(),
        )


_RANKED = re.compile(r"rank\d+-")


def processes(directory: Path, rank: int | None = 0) -> dict[str, Path]:
    """The directories of a trial's processes by their names, `main` first.

    Args:
        directory: which holds them.
        rank: of several that train together, the one whose processes are wanted; None for all, with the rank in front.
    """
    found = {path.name: path for path in directory.glob("*") if path.is_dir()}
    if rank is not None:
        found = {
            name.removeprefix(process_of_rank("", rank)): path
            for name, path in found.items()
            if (_RANKED.match(name) or [""])[0] == process_of_rank("", rank)
        }
    return dict(sorted(found.items(), key=lambda each: (each[0] != MAIN, each[0])))


def process_of_rank(name: str, rank: int) -> str:
    """What a process is called in a directory with those of other ranks: `rank1-main`; the first rank's as it is."""
    return f"rank{rank}-{name}" if rank else name


def truncation(directory: Path) -> str:
    """Why a process' rows of lines end before its training does; empty where they do not."""
    try:
        return (directory / TRUNCATED).read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
