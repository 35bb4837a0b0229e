"""Which row of one run's events belongs to which row of the other's, and whether they are equal. Pure.

Both are walked side by side as long as their rows are the same things. Where they are not, the walk goes on behind the
smallest shift after which several rows are equal again, in content if any are, so that one op more is one finding.
Rows that stay over are paired by what they are, wherever they stand. Arrays only, a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from repro_audit.analysis.compare import Flags, common_numbers, merge
from repro_audit.storage.columns import ROWS_PER_FLUSH, DigestArray, IntArray, Rows, release
from repro_audit.storage.events import Detail, Kind

Numbers: TypeAlias = "npt.NDArray[np.uint64]"
Texts: TypeAlias = "tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]"

_WINDOWS = (256, 4096, ROWS_PER_FLUSH)
"""How far to look for the place where two runs meet again: rows on each side, one try after another."""
_EQUAL_ROWS = 4
_SAME_ROWS = 8
"""So many rows that are equal, or the same things with other values, are no accident."""
_MAX_GAPS = 256
_MAX_TRIES = 16
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_END = np.uint64(0xD1B54A32D192ED03)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Rows of one process."""

    detail: Detail
    start: int
    stop: int
    stepless: bool = False
    """Steps mean nothing: a worker does not know of them, and the process that trains fetches ahead."""

    @classmethod
    def of(cls, detail: Detail) -> Span:
        """All of them."""
        return cls(detail=detail, start=0, stop=len(detail))

    def __len__(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    def steps(self, rows: slice | Rows) -> IntArray:
        """The steps of rows, all zero where they mean nothing."""
        steps = self.detail.step[rows]
        return np.zeros_like(steps) if self.stepless else steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Rows that are the same things in the same order on both sides; places count within the spans."""

    a: int
    b: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Two spans, row by row."""

    a: Span
    b: Span
    partner: Rows
    """By place in the first span: the place of the same row in the second, or -1."""
    partner_of_b: Rows
    moved: Flags
    """By place in the first span: the second has the row, at another place among the rest."""
    before_equal: Flags
    """By place in the first span; False without a partner. Likewise the next one."""
    after_equal: Flags
    runs: tuple[Run, ...]


def align(a: Span, b: Span) -> Alignment:
    """Align two spans."""
    texts = common_numbers(a.detail.strings, b.detail.strings)
    runs = _walk(a, b, texts)
    partner = np.full(len(a), -1, dtype=np.int32)
    partner_of_b = np.full(len(b), -1, dtype=np.int32)
    for run in runs:
        partner[run.a : run.a + run.length] = np.arange(run.b, run.b + run.length, dtype=np.int32)
        partner_of_b[run.b : run.b + run.length] = np.arange(
            run.a, run.a + run.length, dtype=np.int32
        )
    left_a = np.flatnonzero(partner < 0).astype(np.int32)
    left_b = np.flatnonzero(partner_of_b < 0).astype(np.int32)
    numbering = _Numbering()
    for some_a, some_b in _by_steps(a, left_a, b, left_b):
        rows_a, rows_b = merge(
            numbering.keys(a, some_a, texts[0]), numbering.keys(b, some_b, texts[1])
        )
        partner[some_a[rows_a]] = some_b[rows_b]
        partner_of_b[some_b[rows_b]] = some_a[rows_a]
    left_a = left_a[partner[left_a] >= 0]
    before, after = _equal(a, b, runs, left_a, partner)
    return Alignment(
        a=a,
        b=b,
        partner=partner,
        partner_of_b=partner_of_b,
        moved=_moved(partner, partner_of_b, left_a),
        before_equal=before,
        after_equal=after,
        runs=runs,
    )


def _by_steps(a: Span, left_a: Rows, b: Span, left_b: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Rows that may belong together, as few at a time as steps allow."""
    if not len(left_a) or not len(left_b):
        return
    steps_a, steps_b = a.steps(left_a + a.start), b.steps(left_b + b.start)
    if (steps_a[1:] < steps_a[:-1]).any() or (steps_b[1:] < steps_b[:-1]).any():
        yield left_a, left_b
        return
    at_a = at_b = 0
    while at_a < len(left_a):
        step = steps_a[min(at_a + ROWS_PER_FLUSH, len(left_a)) - 1]
        stop_a = int(np.searchsorted(steps_a, step, side="right"))
        stop_b = int(np.searchsorted(steps_b, step, side="right"))
        if stop_b > at_b:
            yield left_a[at_a:stop_a], left_b[at_b:stop_b]
        at_a, at_b = stop_a, stop_b


def _moved(partner: Rows, partner_of_b: Rows, left: Rows) -> Flags:
    """Which of the rows that were paired one by one stand elsewhere among all that both have."""
    elsewhere = np.zeros(len(partner), dtype=np.bool_)
    if len(left):
        paired = np.flatnonzero(partner >= 0)
        elsewhere[paired] = partner[paired] != np.flatnonzero(partner_of_b >= 0)
        alone = np.zeros(len(partner), dtype=np.bool_)
        alone[left] = True
        elsewhere &= alone
    return elsewhere


def _walk(a: Span, b: Span, texts: Texts) -> tuple[Run, ...]:
    """The runs in which both sides go along."""
    runs: list[Run] = []
    at_a = at_b = 0
    while len(runs) < _MAX_GAPS:
        length = _same(a, b, texts, at_a, at_b)
        if at_a + length == len(a) and at_b + length == len(b):
            runs.append(Run(a=at_a, b=at_b, length=length))
            break
        met = _met_alone(a, at_a + length), _met_alone(b, at_b + length)
        if met[0] != met[1]:
            runs.append(Run(a=at_a, b=at_b, length=length))
            at_a, at_b = at_a + length + met[0], at_b + length + met[1]
            continue
        inner = _shift_within(a, b, texts, Run(a=at_a, b=at_b, length=length))
        if inner is not None:
            length, skip_a, skip_b = inner
        else:
            found = _meeting(a, b, texts, at_a + length, at_b + length)
            if found is None:
                runs.append(Run(a=at_a, b=at_b, length=length))
                break
            skip_a, skip_b = found
        runs.append(Run(a=at_a, b=at_b, length=length))
        at_a, at_b = at_a + length + skip_a, at_b + length + skip_b
    return tuple(run for run in runs if run.length)


def _met_alone(span: Span, at: int) -> bool:
    """Whether a row says that a generator is seen for the first time: which row that is hangs on what is watched."""
    row = span.start + at
    return at < len(span) and bool(_is_met(span.detail, slice(row, row + 1))[0])


def _is_met(detail: Detail, rows: slice) -> Flags:
    result: Flags = (detail.kind[rows] == Kind.DRAW) & (detail.before[rows].view("<u8")[0::2] == 0)
    return result


def _names(detail: Detail, texts: npt.NDArray[np.uint32], rows: slice) -> npt.NDArray[np.uint32]:
    """What rows are called; a generator may be known by another way that leads to it, so its rows have no name."""
    result: npt.NDArray[np.uint32] = np.where(
        detail.kind[rows] == Kind.DRAW, np.uint32(0), texts[detail.name[rows]]
    )
    return result


def _same(a: Span, b: Span, texts: Texts, at_a: int, at_b: int) -> int:
    """How many rows from here on are the same things on both sides."""
    longest = min(len(a) - at_a, len(b) - at_b)
    done, size = 0, 256
    while done < longest:
        size = min(size * 4, ROWS_PER_FLUSH, longest - done)
        rows_a = slice(a.start + at_a + done, a.start + at_a + done + size)
        rows_b = slice(b.start + at_b + done, b.start + at_b + done + size)
        other = a.steps(rows_a) != b.steps(rows_b)
        for name in ("kind", "phase"):
            other |= getattr(a.detail, name)[rows_a] != getattr(b.detail, name)[rows_b]
        other |= _is_met(a.detail, rows_a) != _is_met(b.detail, rows_b)
        other |= _names(a.detail, texts[0], rows_a) != _names(b.detail, texts[1], rows_b)
        for name in ("site", "module"):
            numbers_a = texts[0][getattr(a.detail, name)[rows_a]]
            other |= numbers_a != texts[1][getattr(b.detail, name)[rows_b]]
        if other.any():
            return done + int(np.argmax(other))
        done += size
    return done


def _shift_within(a: Span, b: Span, texts: Texts, run: Run) -> tuple[int, int, int] | None:
    """Where in a run of the same things the contents say that one side has rows more: a loop that went round again.

    Line 5 adds in a loop, so all rows are the same things. One side has the contents `v0 v1 v2 v3 ...`, the other
    `v0 v1 v2 new v3 ...`. Place by place, all from the fourth on would differ. But four rows of the first side from
    place 3 on are those of the second from place 4 on, and from there both go along beyond the run: `(3, 0, 1)`.
    Where each value differs, as after a changed input, nothing is found again, and the run stays whole.

    Returns:
        How far the run is good, and how many rows to skip on each side; None where the contents say no such thing.
    """
    start = max(0, run.length - _WINDOWS[1])
    before, after = _equal_rows(a, b, run.a + start, run.b + start, run.length - start)
    unequal = ~(before & after)
    starts = np.flatnonzero(unequal & ~np.r_[False, unequal[:-1]])[:_MAX_TRIES] + start
    for good in starts.tolist():
        at_a, at_b = run.a + good, run.b + good
        size = run.length - good + 4 * _SAME_ROWS
        grams_a = _grams(a, texts[0], at_a, size, contents=True)
        grams_b = _grams(b, texts[1], at_b, size, contents=True)
        shifts = [(int(at), 0) for at in np.flatnonzero(grams_a == grams_b[0])[:1]]
        shifts += [(0, int(at)) for at in np.flatnonzero(grams_b == grams_a[0])[:1]]
        for skip_a, skip_b in sorted(shifts, key=sum):
            if at_a + skip_a >= len(a) or at_b + skip_b >= len(b):
                continue
            # The shift must carry both sides beyond the place where they part without it.
            carried = _same(a, b, texts, at_a + skip_a, at_b + skip_b)
            ended = at_a + skip_a + carried == len(a) and at_b + skip_b + carried == len(b)
            if ended or good + carried > run.length:
                return good, skip_a, skip_b
    return None


def _meeting(a: Span, b: Span, texts: Texts, at_a: int, at_b: int) -> tuple[int, int] | None:
    """The smallest numbers of rows to skip on each side so that both go along again."""
    for window in _WINDOWS:
        for contents in (True, False):
            grams_a = _grams(a, texts[0], at_a, window, contents=contents)
            grams_b = _grams(b, texts[1], at_b, window, contents=contents)
            common, first_a, first_b = np.intersect1d(grams_a, grams_b, return_indices=True)
            if len(common):
                best = int(np.argmin(first_a + first_b))
                return int(first_a[best]), int(first_b[best])
    return None


def _grams(
    span: Span, texts: npt.NDArray[np.uint32], at: int, size: int, *, contents: bool
) -> Numbers:
    """A number for every few rows in a row; behind the end of the span stand rows that equal each other."""
    together = _EQUAL_ROWS if contents else _SAME_ROWS
    size = min(size, len(span) - at + 1)
    stop = min(at + size + together, len(span))
    rows = slice(span.start + at, span.start + stop)
    detail = span.detail
    keys = detail.kind[rows].astype(np.uint64)
    for part in (span.steps(rows), detail.phase[rows]):
        keys = keys * _MULTIPLIER + part.astype(np.uint64)
    for numbers in (
        _names(detail, texts, rows),
        texts[detail.site[rows]],
        texts[detail.module[rows]],
    ):
        keys = keys * _MULTIPLIER + numbers
    if contents:
        for digests in (detail.before[rows], detail.after[rows]):
            halves = digests.view("<u8")
            keys = (keys * _MULTIPLIER + halves[0::2]) * _MULTIPLIER + halves[1::2]
    keys ^= keys >> np.uint64(29)
    keys = np.concatenate((keys, np.full(size + together - len(keys), _END)))
    grams = np.zeros(size, dtype=np.uint64)
    for offset in range(together):
        grams = grams * _MULTIPLIER + keys[offset : offset + size]
    return grams


def _equal(
    a: Span, b: Span, runs: tuple[Run, ...], left: Rows, partner: Rows
) -> tuple[Flags, Flags]:
    """By place in the first span: whether the partner started from the same, and whether it left the same."""
    before = np.zeros(len(a), dtype=np.bool_)
    after = np.zeros(len(a), dtype=np.bool_)
    for at_a, at_b, size in _chunks(runs):
        part = slice(at_a, at_a + size)
        before[part], after[part] = _equal_rows(a, b, at_a, at_b, size)
        if size == ROWS_PER_FLUSH:
            _release(a, b)
    for start in range(0, len(left), ROWS_PER_FLUSH):
        _release(a, b)
        places = left[start : start + ROWS_PER_FLUSH]
        rows_a, rows_b = places + a.start, partner[places] + b.start
        before[places] = _equal_digests(a.detail.before[rows_a], b.detail.before[rows_b])
        after[places] = _equal_digests(a.detail.after[rows_a], b.detail.after[rows_b])
    return before, after


def _release(a: Span, b: Span) -> None:
    for column in (a.detail.before, a.detail.after, b.detail.before, b.detail.after):
        release(column)


def _chunks(runs: tuple[Run, ...]) -> Iterator[tuple[int, int, int]]:
    for run in runs:
        for done in range(0, run.length, ROWS_PER_FLUSH):
            yield run.a + done, run.b + done, min(ROWS_PER_FLUSH, run.length - done)


def _equal_rows(a: Span, b: Span, at_a: int, at_b: int, size: int) -> tuple[Flags, Flags]:
    rows_a = slice(a.start + at_a, a.start + at_a + size)
    rows_b = slice(b.start + at_b, b.start + at_b + size)
    return (
        _equal_digests(a.detail.before[rows_a], b.detail.before[rows_b]),
        _equal_digests(a.detail.after[rows_a], b.detail.after[rows_b]),
    )


def _equal_digests(a: DigestArray, b: DigestArray) -> Flags:
    """As two numbers each, which NumPy compares faster than bytes."""
    equal = a.view("<u8") == b.view("<u8")
    result: Flags = equal[0::2] & equal[1::2]
    return result


class _Numbering:
    """Numbers for what rows are (step, phase, kind, name, site, module), the same for both sides."""

    def __init__(self) -> None:
        self._names: dict[int, int] = {}
        self._things: dict[int, int] = {}

    def keys(self, span: Span, places: Rows, texts: npt.NDArray[np.uint32]) -> Numbers:
        """A number a row. Kinds and phases take 3 bits each and steps 32, which leaves 26 for all else."""
        result = np.empty(len(places), dtype=np.uint64)
        for start in range(0, len(places), ROWS_PER_FLUSH):
            rows = places[start : start + ROWS_PER_FLUSH] + span.start
            detail = span.detail
            named = _numbers(self._names, texts[detail.name[rows]], texts[detail.site[rows]])
            thing = _numbers(self._things, named, texts[detail.module[rows]])
            thing = (thing << np.uint64(3)) | detail.kind[rows].astype(np.uint64)
            thing = (thing << np.uint64(3)) | detail.phase[rows].astype(np.uint64)
            steps = span.steps(rows).astype(np.uint64) << np.uint64(32)
            result[start : start + ROWS_PER_FLUSH] = steps | thing
        return result


def _numbers(
    known: dict[int, int], high: npt.NDArray[np.unsignedinteger], low: npt.NDArray[np.uint32]
) -> Numbers:
    """A number for each pair of numbers, counted up as new pairs come."""
    pairs, inverse = np.unique((high.astype(np.uint64) << np.uint64(32)) | low, return_inverse=True)
    numbers = [known.setdefault(pair, len(known)) for pair in pairs.tolist()]
    return np.array(numbers, dtype=np.uint64)[inverse]
