"""The batches that loaders fetched, whichever processes did. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from repro_audit.analysis.compare import Mismatch
from repro_audit.analysis.pinpoint.align import Span
from repro_audit.analysis.pinpoint.model import Sample
from repro_audit.storage.events import MAIN, Detail, Kind
from repro_audit.storage.facts import RANK
from repro_audit.storage.trace import Phase, Trace

_END = "end"
_SAMPLE = "sample"
_COLLATE = "collate"
"""The samples are there, and are made a batch."""
_INSIDE = {_SAMPLE, _COLLATE}
_BATCH = re.compile(rf"(?:{RANK})?(?:loader(\d+)\.)?batch(?=\.|$)")
"""How a trace calls what a loader handed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """The events of fetching one batch."""

    name: str
    process: str
    span: Span


def fetches(processes: Mapping[str, Detail]) -> list[Fetch]:
    """All, process by process, in execution order."""
    return [
        fetch for process, detail in processes.items() for fetch in _of_process(process, detail)
    ]


def _of_process(process: str, detail: Detail) -> list[Fetch]:
    rows = _rows(detail)
    result = []
    for place, row in enumerate(rows):
        if _meta(detail, row) in {_END, *_INSIDE}:
            continue
        stop = next(
            (each for each in rows[place + 1 :] if _meta(detail, each) not in _INSIDE), len(detail)
        )
        result.append(
            Fetch(
                name=_name(detail, row),
                process=process,
                span=Span(detail=detail, start=row, stop=stop, stepless=True),
            )
        )
    return result


def parted(a: list[Fetch], b: list[Fetch], name: str | None) -> Fetch | None:
    """The first batch of the first run in whose place the second has other indices; None where they have the same.

    One run may have fetched further ahead: batches that it alone has are no sign of another order, unless the other
    run too has some of the same epoch that this one lacks.

    Args:
        a: what the first run fetched.
        b: what the second run fetched.
        name: of the batch that is asked about, where it is known.
    """
    names_a, names_b = {each.name for each in a}, {each.name for each in b}
    if name is not None:
        return next((each for each in a if each.name == name and name not in names_b), None)
    if {each.process for each in (*a, *b)} == {MAIN}:
        pairs = zip(a, b, strict=False)
        return next((mine for mine, theirs in pairs if mine.name != theirs.name), None)
    epochs = {_epoch(each) for each in names_b - names_a}
    return next(
        (each for each in a if each.name not in names_b and _epoch(each.name) in epochs), None
    )


def taken(mine: list[Fetch], trace: Trace, first: Mismatch) -> str | None:
    """The name of the batch that a mismatch is about, by the indices that the trace has for it; None if not known."""
    named = _BATCH.match(first.name)
    if named is None or first.phase is not Phase.DATA:
        return None
    drawn = [
        row.meta
        for row in trace.rows(phase=Phase.DATA)
        if row.name == f"{named[0]}.indices"
        and (row.step, row.occurrence) <= (first.step, first.occurrence)
    ]
    if not drawn:
        return None
    indices = drawn[-1].removesuffix("…")
    loader = f"{named[1] or 0}."
    names = {
        each.name: None
        for each in mine
        if each.name.startswith(loader)
        and (text := each.name.partition(": ")[2])
        and (text == indices or (indices != drawn[-1] and text.startswith(indices)))
    }
    # An unshuffled loader hands out the same indices in every epoch.
    found = sorted(names, key=_number)
    return found[min(drawn.count(drawn[-1]), len(found)) - 1] if found else None


def _number(name: str) -> int:
    """The epoch's."""
    return int(_epoch(name).partition(".")[2])


def _epoch(name: str) -> str:
    return name.partition(":")[0]


def sample_at(detail: Detail, index: int) -> Sample | None:
    """What was being fetched at a row; None where nothing was."""
    position, sample, collating = -1, None, False
    for row in reversed([row for row in _rows(detail) if row <= index]):
        meta = _meta(detail, row)
        if meta == _END:
            return None
        collating = collating or meta == _COLLATE
        if collating and meta in _INSIDE:
            continue
        if meta != _SAMPLE:
            return Sample(
                fetch=_name(detail, row),
                position=position if sample is not None else None,
                index=sample,
            )
        position += 1
        sample = sample if sample is not None else _name(detail, row)
    return None


def _rows(detail: Detail) -> list[int]:
    found: list[int] = np.flatnonzero(detail.kind == Kind.FETCH).tolist()
    return found


def _meta(detail: Detail, row: int) -> str:
    return detail.strings[int(detail.meta[row])]


def _name(detail: Detail, row: int) -> str:
    return detail.strings[int(detail.name[row])]
