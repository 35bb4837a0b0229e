"""The draws of a random generator in two runs: where the first that differs is. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from repro_audit.analysis.compare import PINNED, VARIED, Flags, common_numbers
from repro_audit.storage.columns import Rows
from repro_audit.storage.events import Detail, Kind

if TYPE_CHECKING:
    import numpy.typing as npt


Texts: TypeAlias = "npt.NDArray[np.uint32]"

_LOOK_BACK = 1 << 16
_ALIKE = 4
"""So many draws that follow each other at the same lines show which run has one more."""
_SEED, MADE = "seed", "made"
_RESEEDED = "was reseeded: with another seed in each run"
_MADE_OTHERWISE = "was made with another state in each run"
_UNSEEDED = "started from another state: nothing that was seen seeded it"
_RANDOM = re.compile(
    "rand|drop|bernoulli|normal|uniform|exponential|poisson|multinomial|attention|geometric|cauchy|gamma|dirichlet"
    "|binomial|rrelu"
)


DRAWING = re.compile("::(rand|normal|uniform|bernoulli|multinomial|exponential|poisson|geometric)")
"""What ops are called that do nothing but draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """The first event of a generator that differs."""

    a: int | None
    """Row of the first run; None where only the second has the event. Likewise `b`."""
    b: int | None
    words: str
    unseeded: bool = False
    """The generator stood elsewhere from the beginning."""
    reseeded: bool = False
    """The same line gave it another seed in each run, or made it from one."""


def same_site(detail: Detail, index: int, kind: Kind, *, site: int | None = None) -> list[int]:
    """Rows of a kind that belong to one execution of the line at a row, in order.

    They come after the row that the line's last execution left, and before the line's own. Draws of an op stand right
    beside it.

    Args:
        detail: the events.
        index: the row.
        kind: of the rows that are looked for.
        site: the line's id, where it is not the row's own.
    """
    if site is None and detail.kind[index] == Kind.OP and kind is Kind.DRAW:
        return _beside(detail, index)
    wanted = int(detail.site[index]) if site is None else site
    if wanted < len(detail.strings) and not detail.strings[wanted]:
        return []  # no line: what it has in common with others of the kind is no more than that
    start = max(0, index - _LOOK_BACK)
    here = np.flatnonzero(detail.site[start:index] == wanted) + start
    lines = here[detail.kind[here] == Kind.LINE]
    if site is None and detail.kind[index] == Kind.LINE:
        # A `return` row follows the row of its line, whose draws are its own.
        lines = lines[detail.name[lines] == detail.name[index]]
    if len(lines):
        here = here[here > lines[-1]]
    found: list[int] = here[detail.kind[here] == kind].tolist()
    return found


def _beside(detail: Detail, index: int) -> list[int]:
    """The draws of an op: those right beside it; else, where its name speaks of chance, those of its line."""
    found = []
    for direction in (-1, 1):
        at = index + direction
        while 0 <= at < len(detail) and detail.kind[at] == Kind.DRAW:
            if detail.site[at] == detail.site[index]:
                found.append(at)
            at += direction
    if found or not _RANDOM.search(detail.strings[int(detail.name[index])]):
        return sorted(found)
    rows = slice(index + 1, index + _LOOK_BACK)
    behind = np.flatnonzero(detail.site[rows] == detail.site[index]) + index + 1
    lines = behind[detail.kind[behind] == Kind.LINE]
    behind = behind[detail.kind[behind] == Kind.DRAW]
    if len(lines):
        behind = behind[behind < lines[0]]
    earlier = same_site(detail, index, Kind.DRAW, site=int(detail.site[index]))
    return [*earlier, *behind.tolist()]


def unequal_draw(
    a: Detail, draws_a: list[int], b: Detail, draws_b: list[int]
) -> tuple[str, int | None, int | None] | None:
    """The first draw from a generator in another state, or that one run did not make: the generator, and the rows."""
    by_name: dict[str, tuple[list[int], list[int]]] = {}
    for side, (detail, draws) in enumerate(((a, draws_a), (b, draws_b))):
        for index in draws:
            name = detail.strings[int(detail.name[index])]
            by_name.setdefault(name, ([], []))[side].append(index)
    # Another process may know a generator by another way that leads to it.
    alone = [[name for name, rows in by_name.items() if not rows[side]] for side in (1, 0)]
    for name, other in zip(*alone, strict=False):
        by_name[name] = (by_name[name][0], by_name.pop(other)[1])
    for name, (mine, theirs) in by_name.items():
        for row_a, row_b in zip(mine, theirs, strict=False):
            if a.before[row_a] != b.before[row_b]:
                return name, row_a, row_b
        if len(mine) != len(theirs):
            at = min(len(mine), len(theirs))
            return (
                name,
                mine[at] if at < len(mine) else None,
                theirs[at] if at < len(theirs) else None,
            )
    return None


def follow(a: Detail, row_a: int, b: Detail, row_b: int) -> Departure | None:
    """The first event that differs among those of a generator, up to the draws in two rows; None if none does.

    The last draw of each is at line 7. Events by line, with the states before and after:

    - `3: p -> p1, 7: p1 -> p2` and `3: q -> q1, 7: q1 -> q2`: it started from another state, nothing seeded it.
    - `2: seed A, 7: A -> A1` and `2: seed B, 7: B -> B1`: it was reseeded, what the seeds came upon does not matter.
    - `3: s -> s1, 7: s1 -> s2` and `3: s -> s1, 5: s1 -> t, 7: t -> t1`: the second drew more, at line 5.
    """
    rows_a = events(a, a.strings[int(a.name[row_a])], row_a + 1)
    rows_b = events(b, b.strings[int(b.name[row_b])], row_b + 1)
    texts_a, texts_b = common_numbers(a.strings, b.strings)
    lines_a, lines_b = texts_a[a.site[rows_a]], texts_b[b.site[rows_b]]
    size = min(len(rows_a), len(rows_b))
    rows = rows_a[:size], rows_b[:size]
    # What a seed came upon does not matter.
    drew = (a.meta[rows[0]] != _id(a, _SEED)) & (b.meta[rows[1]] != _id(b, _SEED))
    unequal = (lines_a[:size] != lines_b[:size]) | (a.after[rows[0]] != b.after[rows[1]])
    unequal |= drew & (a.before[rows[0]] != b.before[rows[1]])
    unequal &= ~(_put_back(a, rows[0]) & _put_back(b, rows[1]))
    place = int(np.argmax(unequal)) if unequal.any() else size
    mine = int(rows_a[place]) if place < len(rows_a) else None
    theirs = int(rows_b[place]) if place < len(rows_b) else None
    if mine is None and theirs is None:
        return None
    if mine is not None and theirs is not None:
        if lines_a[place] == lines_b[place]:
            found = (a.before[rows_a[0]], b.before[rows_b[0]])
            stands = (a.before[mine], b.before[theirs])
            if stands == found and stands[0] != stands[1] and drew[place]:
                return Departure(a=mine, b=theirs, words=_UNSEEDED, unseeded=True)
            words = _change(a, mine, b, theirs)
            return Departure(
                a=mine, b=theirs, words=words, reseeded=words in {_RESEEDED, _MADE_OTHERWISE}
            )
        # The run that has an event more is the one whose next ones are the other's.
        extra_a = _go_along(lines_a[place + 1 :], lines_b[place:])
        extra_b = _go_along(lines_a[place:], lines_b[place + 1 :])
        if extra_a == extra_b:
            return Departure(a=mine, b=theirs, words="was used by another line in each run")
        mine, theirs = (mine, None) if extra_a > extra_b else (None, theirs)
    seeded = a.meta[mine] == _id(a, _SEED) if mine is not None else b.meta[theirs] == _id(b, _SEED)
    return Departure(
        a=mine,
        b=theirs,
        words=f"{'was reseeded' if seeded else 'drew more'}: "
        f"by a line that only {VARIED if mine is None else PINNED} got to",
    )


def _put_back(detail: Detail, rows: Rows) -> Flags:
    """Which of a generator's events gave it back the state that it was found in: that seeds nothing."""
    if not len(rows):
        return np.zeros(0, dtype=np.bool_)
    result: Flags = (detail.meta[rows] == _id(detail, _SEED)) & (
        detail.after[rows] == detail.before[rows[0]]
    )
    return result


def _change(a: Detail, row_a: int, b: Detail, row_b: int) -> str:
    """How an event at the same line differs."""
    if _id(a, MADE) == a.meta[row_a]:
        return _MADE_OTHERWISE
    if _id(a, _SEED) == a.meta[row_a] or _id(b, _SEED) == b.meta[row_b]:
        return _RESEEDED
    if a.before[row_a] == b.before[row_b]:
        return "drew more in one run than in the other"
    return "was moved, since the line that used it before, by something that was not seen"


def _go_along(a: Texts, b: Texts) -> int:
    """How many of the next few events are at the same lines."""
    size = min(len(a), len(b), _ALIKE)
    equal = a[:size] == b[:size]
    return size if equal.all() else int(np.argmin(equal))


def events(detail: Detail, generator: str, stop: int) -> Rows:
    """The rows of a generator's events before a place."""
    name = _id(detail, generator)
    wanted = (detail.kind[:stop] == Kind.DRAW) & (detail.name[:stop] == name)
    return np.flatnonzero(wanted).astype(np.int32)


def _id(detail: Detail, text: str) -> int:
    return detail.strings.index(text) if text in detail.strings else len(detail.strings)
