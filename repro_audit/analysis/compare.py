"""Two traces -> their difference, or None where all outcomes are equal and in the same order. Pure.

Rows are aligned by what they are (step, phase, name, and which of several such), not by where they stand, so an
inserted row is one finding and not a shift of all that follow. Everything is done by sorting and merging numbers:
a million rows take a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from repro_audit.storage.columns import ROWS_PER_FLUSH, Rows
from repro_audit.storage.facts import RANK
from repro_audit.storage.trace import Observation, Phase, Role, Trace, count_earlier, group_keys

PINNED, VARIED = "the pinned run", "the varied run"
"""The two runs in words: the first one that is given, and the other."""

MAX_CONTEXT = 16

Flags: TypeAlias = "npt.NDArray[np.bool_]"
Kind: TypeAlias = Literal["value", "structure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """An observation that the two traces do not share."""

    step: int
    phase: Phase
    name: str
    occurrence: int
    kind: Kind
    """`value`: other bytes in the same form. `structure`: another form, another place, or in one trace only."""
    detail: str
    """What differs about the structure, in words; empty for a value."""
    meta_a: str | None
    """The form in the first trace; None where it has no such row."""
    meta_b: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How two traces differ."""

    first: Mismatch
    """The first in execution order; always an outcome."""
    mismatched: int
    """Outcomes that differ, are in one trace only, or change places with others."""
    compared: int
    """Outcomes that are in either trace."""
    context: tuple[Mismatch, ...]
    """Circumstances that differ before `first` or in its step and phase, in execution order: of each name the last,
    then the earliest, up to `MAX_CONTEXT`."""


class _Pairing:
    """The rows of one role in both traces, and which belongs to which.

    `order_a` and `order_b` are indices into the traces; everything else counts within those.
    """

    def __init__(self, a: Trace, b: Trace, role: Role) -> None:
        self.a, self.b = a, b
        self.order_a: Rows = np.flatnonzero(a.role == role).astype(np.int32)
        self.order_b: Rows = np.flatnonzero(b.role == role).astype(np.int32)
        self._numbers_a, self._numbers_b = common_numbers(a.strings, b.strings)
        self._join()
        self.differs = self._differing()
        """By row of the first trace: it is in the second too, in the same place or not, but with other contents."""

    def _join(self) -> None:
        """Find each row's partner: the row with the same step, phase and name, and as many of those before it."""
        keys_a = group_keys(self.a, self.order_a, self._numbers_a)
        keys_b = group_keys(self.b, self.order_b, self._numbers_b)
        self.shared = start = _common_start(keys_a, keys_b)
        """So many rows at the start are the same things in the same order."""
        self.partner: Rows = np.full(len(keys_a), -1, dtype=np.int32)
        """By row of the first trace: its row in the second, or -1."""
        self.partner[:start] = np.arange(start, dtype=np.int32)
        self.only_b: Flags = np.ones(len(keys_b), dtype=np.bool_)
        self.only_b[:start] = False
        if start < len(keys_a) and start < len(keys_b):
            rows_a, rows_b = merge(keys_a[start:], keys_b[start:])
            self.partner[rows_a + start] = rows_b + start
            self.only_b[rows_b + start] = False
        self.only_a: Flags = self.partner < 0
        self.moved: Flags = np.zeros(len(keys_a), dtype=np.bool_)
        """By row of the first trace: among the rows that both have, it stands elsewhere in the second."""
        paired = np.flatnonzero(~self.only_a)
        self.moved[paired] = self.partner[paired] != np.flatnonzero(~self.only_b)

    def _differing(self) -> Flags:
        result = np.zeros(len(self.partner), dtype=np.bool_)
        for start in range(0, len(result), ROWS_PER_FLUSH):
            partner = self.partner[start : start + ROWS_PER_FLUSH]
            rows = np.flatnonzero(partner >= 0) + start
            row_a, row_b = self.order_a[rows], self.order_b[self.partner[rows]]
            meta_a, meta_b = (
                self._numbers_a[self.a.meta[row_a]],
                self._numbers_b[self.b.meta[row_b]],
            )
            digest_a, digest_b = _halves(self.a, row_a), _halves(self.b, row_b)
            result[rows] = (meta_a != meta_b) | (digest_a != digest_b).any(axis=1)
        return result

    @property
    def wrong(self) -> Flags:
        """By row of the first trace: it has no equal in its place."""
        return self.differs | self.only_a | self.moved

    def names(
        self, rows_a: Rows, rows_b: Rows
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """The names of rows, as numbers that both traces share."""
        return (
            self._numbers_a[self.a.name[self.order_a[rows_a]]],
            self._numbers_b[self.b.name[self.order_b[rows_b]]],
        )

    def mismatch_of_a(self, row: int) -> Mismatch:
        """A row of the first trace that differs from its partner, or has none."""
        ours = self.a.row(int(self.order_a[row]))
        partner = int(self.partner[row])
        if partner < 0:
            return _only(ours, in_first=True)
        return _pair(ours, self.b.row(int(self.order_b[partner])))

    def mismatch_of_b(self, row: int) -> Mismatch:
        """A row that only the second trace has."""
        return _only(self.b.row(int(self.order_b[row])), in_first=False)


def compare(a: Trace, b: Trace) -> Difference | None:
    """Compare the outcomes of two traces; None where they are equal, one by one and in order."""
    outcomes = _Pairing(a, b, Role.OUTCOME)
    wrong = outcomes.wrong
    mismatched = int(wrong.sum()) + int(outcomes.only_b.sum())
    if not mismatched:
        return None
    place = (
        int(np.argmax(wrong[: outcomes.shared]))
        if wrong[: outcomes.shared].any()
        else outcomes.shared
    )
    first = _first(outcomes, place)
    return Difference(
        first=first,
        mismatched=mismatched,
        compared=len(wrong) + int(outcomes.only_b.sum()),
        context=_context(
            _Pairing(a, b, Role.CONTEXT),
            first,
            _limit(outcomes.order_a, a, place),
            _limit(outcomes.order_b, b, place),
        ),
    )


def unequal_values(a: Trace, b: Trace) -> Iterator[tuple[int, Mismatch, bytes]]:
    """The outcomes of the same form that differ: the row in the second trace, what it is, and the first's digest."""
    outcomes = _Pairing(a, b, Role.OUTCOME)
    for row in np.flatnonzero(outcomes.differs).tolist():
        mismatch = outcomes.mismatch_of_a(row)
        if mismatch.kind == "value":
            theirs = int(outcomes.order_b[int(outcomes.partner[row])])
            yield theirs, mismatch, a.digest[int(outcomes.order_a[row])].tobytes()


def way(a: Trace, b: Trace) -> tuple[Mismatch, ...]:
    """How a difference goes from its first outcome to the loss: the first mismatch in each phase, until a loss differs.

    Without a loss that differs, all phases in which something does. Empty for equal traces.
    """
    outcomes = _Pairing(a, b, Role.OUTCOME)
    rows = np.flatnonzero(outcomes.differs | outcomes.only_a).astype(np.int32)
    places = outcomes.order_a[rows]
    phases = a.step[places].astype(np.int64) * len(Phase) + a.phase[places]
    losses = [
        number
        for number, text in enumerate(a.strings)
        if re.fullmatch(rf"({RANK})?loss(\.\d+)?", text)
    ]
    is_loss = np.isin(a.name[places], losses)
    begins = np.ones(len(rows), dtype=np.bool_)
    begins[1:] = phases[1:] != phases[:-1]
    links = []
    for index in np.flatnonzero(begins | is_loss).tolist():
        links.append(outcomes.mismatch_of_a(int(rows[index])))
        if is_loss[index]:
            break
    return tuple(links)


def _first(outcomes: _Pairing, place: int) -> Mismatch:
    """The mismatch at a place before which all is equal, so that both traces have the same rows there."""
    if place < outcomes.shared:
        return outcomes.mismatch_of_a(place)
    found: list[tuple[bool, Observation, bool]] = []
    if place < len(outcomes.order_a):
        found.append(
            (bool(outcomes.only_a[place]), outcomes.a.row(int(outcomes.order_a[place])), True)
        )
    if place < len(outcomes.order_b):
        found.append(
            (bool(outcomes.only_b[place]), outcomes.b.row(int(outcomes.order_b[place])), False)
        )
    # Missing rows before moved ones; then by what they are, so that swapping the traces swaps no more than the words.
    found.sort(
        key=lambda each: (
            not each[0],
            each[1].step,
            each[1].phase,
            each[1].name,
            each[1].occurrence,
        )
    )
    missing, row, in_first = found[0]
    other = found[1][1] if len(found) > 1 and found[1][0] == missing else None
    return (
        _only(row, in_first=in_first, instead=other)
        if missing
        else _moved(row, other, in_first=in_first)
    )


def _limit(order: Rows, trace: Trace, place: int) -> int:
    """The index in the trace of the outcome at a place, or the trace's end."""
    return int(order[place]) if place < len(order) else len(trace)


def _context(
    circumstances: _Pairing, first: Mismatch, limit_a: int, limit_b: int
) -> tuple[Mismatch, ...]:
    """Circumstances that may explain the first mismatch; see `Difference.context`."""
    rows_a = np.flatnonzero(circumstances.differs | circumstances.only_a).astype(np.int32)
    rows_b = np.flatnonzero(circumstances.only_b).astype(np.int32)
    rows_a = rows_a[_until(circumstances.a, circumstances.order_a[rows_a], limit_a, first)]
    rows_b = rows_b[_until(circumstances.b, circumstances.order_b[rows_b], limit_b, first)]
    places = np.concatenate((circumstances.order_a[rows_a], circumstances.order_b[rows_b]))
    names = np.concatenate(circumstances.names(rows_a, rows_b))
    in_order = np.argsort(places, kind="stable")
    _, earliest = np.unique(names[in_order], return_index=True)
    _, latest = np.unique(names[in_order][::-1], return_index=True)
    chosen = dict.fromkeys(
        [*sorted((len(names) - 1 - latest).tolist(), reverse=True), *sorted(earliest.tolist())]
    )
    kept = in_order[sorted([*chosen][:MAX_CONTEXT])].tolist()
    return tuple(
        circumstances.mismatch_of_a(int(rows_a[each]))
        if each < len(rows_a)
        else circumstances.mismatch_of_b(int(rows_b[each - len(rows_a)]))
        for each in kept
    )


def _until(trace: Trace, rows: Rows, limit: int, first: Mismatch) -> Flags:
    """Which rows come before a limit, or belong to the step and phase of the first mismatch."""
    together = (trace.step[rows] == first.step) & (trace.phase[rows] == first.phase)
    wanted: Flags = (rows < limit) | together
    return wanted


def common_numbers(
    a: Sequence[str], b: Sequence[str]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """By the id of a text in each trace, a number that equal texts share."""
    numbers: dict[str, int] = {}

    def number(texts: Iterable[str]) -> npt.NDArray[np.uint32]:
        return np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.uint32)

    return number(a), number(b)


def _common_start(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> int:
    """How many items at the start are equal."""
    size = min(len(a), len(b))
    unequal = a[:size] != b[:size]
    return int(np.argmax(unequal)) if unequal.any() else size


def merge(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> tuple[Rows, Rows]:
    """Pair equal items, the first of each side with each other, then the second: their places on both sides."""
    order_a, earlier_a = count_earlier(a)
    order_b = np.argsort(b, kind="stable").astype(np.int32)
    sorted_a, sorted_b = a[order_a], b[order_b]
    candidate = np.searchsorted(sorted_b, sorted_a).astype(np.int32)
    candidate += earlier_a
    found = candidate < len(b)
    found[found] = sorted_b[candidate[found]] == sorted_a[found]
    return order_a[found], order_b[candidate[found]]


def _halves(trace: Trace, rows: Rows) -> npt.NDArray[np.uint64]:
    """Digests as two numbers each, which NumPy compares faster than bytes."""
    return trace.digest[rows].view("<u8").reshape(-1, 2)


def _only(row: Observation, *, in_first: bool, instead: Observation | None = None) -> Mismatch:
    here, there = (PINNED, VARIED) if in_first else (VARIED, PINNED)
    detail = f"only in {here}"
    if instead is not None:
        detail += f"; {there} has {instead.name!r} here"
    meta_a, meta_b = (row.meta, None) if in_first else (None, row.meta)
    return _mismatch(row, "structure", detail, meta_a, meta_b)


def _moved(row: Observation, other: Observation | None, *, in_first: bool) -> Mismatch:
    here, there = (PINNED, VARIED) if in_first else (VARIED, PINNED)
    detail = f"comes at another place: here in {here}"
    if other is not None:
        detail += f", where {there} has {other.name!r}"
    return _mismatch(row, "structure", detail, row.meta, row.meta)


def _pair(a: Observation, b: Observation) -> Mismatch:
    if a.meta == b.meta:
        return _mismatch(a, "value", "", a.meta, b.meta)
    return _mismatch(a, "structure", _form_change(a.meta, b.meta), a.meta, b.meta)


def _mismatch(
    row: Observation, kind: Kind, detail: str, meta_a: str | None, meta_b: str | None
) -> Mismatch:
    return Mismatch(
        step=row.step,
        phase=row.phase,
        name=row.name,
        occurrence=row.occurrence,
        kind=kind,
        detail=detail,
        meta_a=meta_a,
        meta_b=meta_b,
    )


_FORM = re.compile(r"(?P<dtype>.*)\[(?P<shape>[^\[\]]*)\](?P<rest>.*)", re.DOTALL)


def _form_change(a: str, b: str) -> str:
    """What differs between two forms: the shape alone, the dtype alone, or all of it."""
    parts_a, parts_b = _FORM.fullmatch(a), _FORM.fullmatch(b)
    if parts_a and parts_b:
        unequal = [part for part in ("dtype", "shape", "rest") if parts_a[part] != parts_b[part]]
        if unequal == ["shape"]:
            sizes = (parts["shape"].replace(",", "x") or "scalar" for parts in (parts_a, parts_b))
            return "shape " + " against ".join(sizes)
        if unequal == ["dtype"]:
            return f"dtype {parts_a['dtype']} against {parts_b['dtype']}"
    return f"{a} against {b}"
