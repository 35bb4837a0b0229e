"""Traces made by hand, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from repro_audit.storage.trace import COLUMNS, Phase, Role, Trace

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Row:
    """One observation, before it has an occurrence."""

    step: int = 0
    phase: Phase = Phase.FORWARD
    role: Role = Role.OUTCOME
    name: str = "output"
    meta: str = "float32[2]"
    digest: bytes = bytes(16)


def trace_of(rows: Iterable[Row]) -> Trace:
    """A trace in memory, its texts numbered as they come."""
    ids: dict[str, int] = {}
    records = [
        (
            row.step,
            row.phase,
            row.role,
            ids.setdefault(row.name, len(ids)),
            ids.setdefault(row.meta, len(ids)),
            row.digest,
        )
        for row in rows
    ]
    table = np.array(records, dtype=list(COLUMNS))
    columns = {name: np.ascontiguousarray(table[name]) for name, _ in COLUMNS}
    return Trace(strings=tuple(ids), **columns)
