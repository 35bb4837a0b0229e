"""The rows that can tell where a difference comes from and where it goes: lines, and ops that differ. Pure.

Which line ran an op, and which line called the function that another belongs to, follows from the order of the rows:
a line's row comes when it is done, after all that it ran, and a function's last row is its `return`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from repro_audit.analysis.compare import Flags
from repro_audit.storage.columns import Rows
from repro_audit.storage.events import Kind, Line, Site
from repro_audit.storage.trace import Phase

if TYPE_CHECKING:
    from repro_audit.analysis.pinpoint.align import Alignment, Span

MAX_ITEMS = 4000
"""Of more, those behind are not looked at: what is still spreading there is taken to go on."""
_CLOSE = 32
"""Where lines are too many, those are kept that have a difference no more rows away."""
_BEHIND = 512
"""So many more rows show which line was running at the end."""
_ARRIVAL = "aten::set_"
"""By which a tensor takes the memory in which a worker has sent it; how many have come by the end is chance."""

NOWHERE = -1


@dataclass(slots=True, kw_only=True)
class Item:
    """A row of either run, or a row that both have."""

    number: int
    """Its place among the items."""
    a: int
    """Place in the first span, or -1. Likewise `b`; both are set for a pair."""
    b: int
    kind: Kind
    name: str
    file: str
    function: tuple[str, str, int]
    """File, name and first line of the function."""
    site: str
    form: str
    """Of what an op left; empty for a line."""
    names: tuple[str, ...]
    sets: tuple[str, ...]
    """Names that it assigns to; all that it mentions where that is not known."""
    changes: bool
    """It left something else than it started from, in one run at least; a line that only reads does not."""
    before: bool
    """It started from something else. True for a row that only one run has; likewise the next one."""
    after: bool
    gap: int
    """Number of the stretch without counterpart in the other run that it belongs to, or -1."""
    step: int
    phase: int
    parent: int = NOWHERE
    """The item that is the line which ran it, or called its function."""
    frame: int = NOWHERE
    """Items of one number belong to one call of one function."""

    ran: bool = False
    """A line that ran an op, or called a function, that left something else."""

    @property
    def paired(self) -> bool:
        """Both runs have it."""
        return self.a >= 0 and self.b >= 0

    @property
    def returned(self) -> bool:
        """It is the end of a call."""
        return self.kind is Kind.LINE and self.name == "return"

    @property
    def starts(self) -> bool:
        """It made a difference out of equal things."""
        return self.paired and not self.before and self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A window of items, in execution order."""

    all: list[Item]
    stop: int
    """Items from here on came after what is to be explained."""
    whole: bool
    """None was left out before `stop`."""
    transport: frozenset[int]
    """Gaps of nothing but what takes batches from one process to another, of which no line is the program's."""


def differing(alignment: Alignment) -> Flags:
    """By place in the first span: the row is an op's or a line's, and has no equal at its place in the second."""
    span = alignment.a
    kind = np.asarray(span.detail.kind[span.start : span.stop])
    unequal = ~(alignment.before_equal & alignment.after_equal) | alignment.moved
    result: Flags = unequal & (kind <= Kind.LINE)
    return result


def read(alignment: Alignment, stop: int, *, across: bool = False) -> Items:
    """The items from the first difference on to a place in the first span, and a few more lines behind it.

    Args:
        alignment: of both runs.
        stop: the place.
        across: another process ran the second run's, as where batches are fetched by workers or not.
    """
    span = alignment.a
    kind = np.asarray(span.detail.kind[span.start : span.stop])
    unequal = differing(alignment)
    only_b, anchors = _only_b(alignment)
    first = int(np.argmax(unequal)) if unequal.any() else len(span)
    if len(only_b):
        first = min(first, int(anchors[0]))
    lines = kind == Kind.LINE
    lines[:first] = False
    if int(np.count_nonzero(lines[:stop])) > MAX_ITEMS // 2:
        # What differs later must not fall out of the window for lines that tell nothing of it.
        lines &= _near(unequal, anchors)
    chosen: Rows = np.flatnonzero(unequal | lines).astype(np.int32)
    total = int(np.searchsorted(chosen, stop)) + int(np.searchsorted(anchors, stop, side="right"))
    size = min(total, MAX_ITEMS)
    chosen = chosen[: size + _BEHIND]
    only_b, anchors = only_b[: size + _BEHIND], anchors[: size + _BEHIND]
    # Rows that only the second run has come before the one in whose place they stand.
    order = np.concatenate((chosen * 2 + 1, anchors * 2))
    sequence = np.argsort(order, kind="stable")[: size + _BEHIND]
    rows = np.concatenate((chosen, only_b))[sequence].tolist()
    mine = (sequence < len(chosen)).tolist()
    reader = _Reader(alignment)
    items = [
        reader.item(number, row, ours=ours)
        for number, (row, ours) in enumerate(zip(rows, mine, strict=True))
    ]
    _nest(items)
    _mark(items)
    return Items(
        all=items,
        stop=size,
        whole=total <= MAX_ITEMS,
        transport=_transport(items, across=across),
    )


def _transport(items: Sequence[Item], *, across: bool) -> frozenset[int]:
    of_program = {item.gap for item in items if item.site or not across}
    of_more = {item.gap for item in items if item.name != _ARRIVAL or item.phase != Phase.DATA}
    return frozenset({item.gap for item in items} - (of_program & of_more))


def _near(unequal: Flags, anchors: Rows) -> Flags:
    """Which rows have one close by that differs."""
    marked = unequal.copy()
    marked[np.minimum(anchors, len(marked) - 1)] = True
    sums = np.concatenate(([0], np.cumsum(marked, dtype=np.int32)))
    places = np.arange(len(marked), dtype=np.int32)
    above = np.minimum(places + _CLOSE, len(marked))
    result: Flags = sums[above] > sums[np.maximum(places - _CLOSE, 0)]
    return result


def _only_b(alignment: Alignment) -> tuple[Rows, Rows]:
    """Ops and lines that only the second run has, and the place in the first before which each would stand."""
    span = alignment.b
    kind = np.asarray(span.detail.kind[span.start : span.stop])
    rows = np.flatnonzero((alignment.partner_of_b < 0) & (kind <= Kind.LINE))
    starts = np.array([run.b for run in alignment.runs], dtype=np.int64)
    ends = np.array([0, *(run.a + run.length for run in alignment.runs)], dtype=np.int64)
    return rows.astype(np.int32), ends[np.searchsorted(starts, rows, side="right")].astype(np.int32)


class _Reader:
    """Makes items; each text is read once."""

    def __init__(self, alignment: Alignment) -> None:
        self._alignment = alignment
        self._sites: dict[str, Site | None] = {}
        self._names: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._starts_a = [run.a for run in alignment.runs]
        self._starts_b = [run.b for run in alignment.runs]

    def item(self, number: int, place: int, *, ours: bool) -> Item:
        alignment = self._alignment
        span = alignment.a if ours else alignment.b
        other = int(alignment.partner[place]) if ours else NOWHERE
        moved = ours and bool(alignment.moved[place])
        gap = NOWHERE
        if other < 0 or moved:
            starts = self._starts_a if ours else self._starts_b
            gap = int(np.searchsorted(starts, place, side="right"))
        paired = other >= 0
        row, row_b = span.start + place, alignment.b.start + other
        changes = bool(span.detail.before[row] != span.detail.after[row])
        if paired and not changes:
            changes = bool(alignment.b.detail.before[row_b] != alignment.b.detail.after[row_b])
        return Item(
            number=number,
            a=place if ours else NOWHERE,
            b=other if ours else place,
            before=not (paired and bool(alignment.before_equal[place])),
            after=not (paired and bool(alignment.after_equal[place])),
            gap=gap,
            changes=changes,
            **self._texts(span, row),
        )

    def _texts(self, span: Span, row: int) -> dict[str, Any]:
        detail = span.detail
        strings = detail.strings
        text = strings[int(detail.site[row])]
        if text not in self._sites:
            self._sites[text] = Site.read(text)
        site = self._sites[text]
        kind = Kind(int(detail.kind[row]))
        form = strings[int(detail.meta[row])]
        meta = form if kind is Kind.LINE else ""
        if meta not in self._names:
            line = Line.read(meta)
            self._names[meta] = line.names, line.sets
        names, sets = self._names[meta]
        return {
            "kind": kind,
            "name": strings[int(detail.name[row])],
            "file": site.file if site else "",
            "function": (site.file, site.function, site.first) if site else ("", "", 0),
            "site": text,
            "form": form if kind is Kind.OP else "",
            "names": names,
            "sets": sets,
            "step": int(detail.step[row]),
            "phase": int(detail.phase[row]),
        }


def _mark(items: Sequence[Item]) -> None:
    """Set `ran`."""
    for item in items:
        if not item.after:
            continue
        line = item.parent
        if item.returned and line >= 0:
            items[line].ran = True
        while item.kind is Kind.OP and line >= 0:
            items[line].ran = True
            line = items[line].parent


def _nest(items: Sequence[Item]) -> None:
    """Set `parent` and `frame`, from the last to the first: what a call ran stands before its `return`.

    `y = noise(x)` in line 12 calls `return x + rand(2)` in line 21:

        0  op rand, line 21    parent 2
        1  op add, line 21     parent 2
        2  line 21             parent 4, frame 1
        3  return, line 21     parent 4, frame 1
        4  line 12             frame 0

    Line 12 runs in frame 0. The `return` before it opens frame 1, which line 12 has called; line 21 runs there, and
    the ops with its site are its own.
    """
    stack: list[tuple[int, tuple[str, str, int]]] = []
    """Of the calls that are going on: the frame's number and function."""
    current: dict[int, int] = {}
    """By frame: the line that runs in it."""
    callers: dict[int, int] = {}
    frames = 0
    for number in range(len(items) - 1, -1, -1):
        item = items[number]
        if item.kind is Kind.OP:
            item.parent = next(
                (
                    current[frame]
                    for frame, _ in reversed(stack)
                    if frame in current and items[current[frame]].site == item.site
                ),
                NOWHERE,
            )
            continue
        known = [function for _, function in stack]
        place = len(known) - 1 - known[::-1].index(item.function) if item.function in known else -1
        if place >= 0 and item.returned:
            # Called again by the same line, rather than by itself.
            del stack[place:]
        elif place >= 0:
            del stack[place + 1 :]
        elif not item.returned:
            # The end of its call is not among the items: it lies behind them, or an exception took its place.
            stack.clear()
        if place < 0 or item.returned:
            callers[frames] = current.get(stack[-1][0], NOWHERE) if stack else NOWHERE
            stack.append((frames, item.function))
            frames += 1
        item.frame = stack[-1][0]
        item.parent = callers[item.frame]
        if not item.returned:
            current[item.frame] = number
