"""Detailed events made by hand, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from repro_audit.storage.events import COLUMNS, Detail, Kind, Site
from repro_audit.storage.trace import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE = "/home/me/train.py"


@dataclass(frozen=True, slots=True)
class Row:
    """One event; `before` and `after` are any text, which stands for the values that it is a digest of."""

    kind: Kind = Kind.OP
    name: str = "aten::add"
    line: int = 1
    """0 for no line of the program's own."""
    before: str = ""
    after: str = ""
    meta: str = ""
    function: str = "forward"
    module: str = ""
    step: int = 0
    phase: Phase = Phase.FORWARD
    file: str = FILE
    first: int = 0

    @property
    def site(self) -> str:
        return (
            Site(self.file, self.line, self.function, first=self.first).text() if self.line else ""
        )


def detail_of(rows: Iterable[Row], *texts: str) -> Detail:
    """Events in memory, texts numbered as they come, those given here first."""
    ids: dict[str, int] = {text: number for number, text in enumerate(texts)}

    def intern(text: str) -> int:
        return ids.setdefault(text, len(ids))

    records = [
        (
            row.kind,
            row.step,
            row.phase,
            intern(row.name),
            intern(row.site),
            intern(row.module),
            intern(row.meta),
            xxhash.xxh3_128_digest(row.before.encode()),
            xxhash.xxh3_128_digest(row.after.encode()),
        )
        for row in rows
    ]
    table = np.array(records, dtype=list(COLUMNS))
    columns = {name: np.ascontiguousarray(table[name]) for name, _ in COLUMNS}
    return Detail(strings=tuple(ids), **columns)
