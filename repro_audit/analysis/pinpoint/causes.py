"""From the place where a difference begins to its cause: a line, an op, a draw, a file. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from repro_audit import notebook
from repro_audit.analysis.compare import PINNED, VARIED, Mismatch
from repro_audit.analysis.pinpoint import items as items_module
from repro_audit.analysis.pinpoint import suspects
from repro_audit.analysis.pinpoint.align import Alignment, Span, align
from repro_audit.analysis.pinpoint.draws import DRAWING, Departure, follow, same_site, unequal_draw
from repro_audit.analysis.pinpoint.model import Cause, CauseKind, EventPair
from repro_audit.analysis.pinpoint.rank import rank, source_of
from repro_audit.storage.events import MAIN, Detail, Kind, Line
from repro_audit.storage.facts import AMBIENT
from repro_audit.storage.reads import Suspect, in_words

if TYPE_CHECKING:
    from repro_audit.analysis.pinpoint.items import Item, Items

_LINE_AFTER_DRAW = 4096
"""So many rows behind a draw the row of its line is looked for."""
_UNSEEN_GENERATOR = (
    "it draws from a generator that no line of the program names, seeded otherwise in each run"
)
_INCOMPLETE = "its inputs differ already, and nothing that was seen made them so"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The same stretch of the program in both runs."""

    a: Span
    b: Span
    process: str
    other_process: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """A file that a place read, and that had another content in each run."""

    path: str
    words: str


def explain(pair: Pair, first: Mismatch, stop: int, suspect: Suspect | None) -> Cause | None:
    """The cause of a mismatch, seen before a place in the first span; None where nothing differs there."""
    alignment = align(pair.a, pair.b)
    items = items_module.read(alignment, stop, across=pair.process != pair.other_process)
    if not any(item.before or item.after or item.gap >= 0 for item in items.all[: items.stop]):
        return None
    return _Explanation(pair, alignment, items, suspect).cause(first)


class _Explanation:
    def __init__(
        self, pair: Pair, alignment: Alignment, items: Items, suspect: Suspect | None = None
    ) -> None:
        self._suspect = suspect
        self._pair = pair
        self._a, self._b = pair.a.detail, pair.b.detail
        self._alignment = alignment
        self._items = items
        self._reasons: dict[int, bool] = {}

    def cause(self, first: Mismatch) -> Cause:
        ranking = rank(self._items, first, self._own_reason)
        if ranking is None:
            item = next(item for item in self._items.all if item.before or item.after)
            kind: CauseKind = "op" if item.kind is Kind.OP else "line"
            return self._cause(kind, item, _INCOMPLETE, incomplete=True)
        found = self._of(ranking.first)
        if self._suspect:
            found = self._suspected(found, self._items.all[ranking.first], self._suspect)
        causes = [found]
        # What such a line ran differs by that, and not by itself.
        for each in () if found.kind == "reading" else ranking.independent:
            another = self._of(each)
            # Whatever draws from a generator that has parted differs by that, and not by itself.
            parted = {cause.generator for cause in causes if cause.kind == "draw"}
            # What comes again, in the next sample or where a checkpoint recomputes, is no other cause.
            if another.generator not in parted and _what(another) not in map(_what, causes):
                causes.append(another)
        return replace(
            found,
            where_from=(
                *((found.place,) if found.kind == "draw" else ()),
                *(self._place(self._items.all[each]) for each in ranking.path),
            ),
            independent=tuple(causes[1:]),
        )

    def _of(self, number: int) -> Cause:
        item = self._items.all[number]
        return self._of_gap(item) if item.gap >= 0 and not item.starts else self._of_row(item)

    def _suspected(self, found: Cause, item: Item, suspect: Suspect) -> Cause:
        """The line that does what the source is about, where it ran what was found, or decided about it."""
        if suspect.hidden_order and found.incomplete:
            # Whoever hashes objects need not see their order: a line that goes through them is likelier.
            ordering = self._behind(found, item, replace(suspect, lines=frozenset()))
            if ordering is not None:
                return ordering
        return self._behind(found, item, suspect) or found

    def _behind(self, found: Cause, item: Item, suspect: Suspect) -> Cause | None:
        shown = found.place.event
        if shown is not None and suspects.matches(self._a, shown.index, suspect):
            return found
        rows = []
        functions = [item.function]
        if item.gap >= 0:
            decided = self._deciding(self._edges(item.gap)[0])
            rows += [] if decided is None else [decided]
        line = item
        while line.parent >= 0:
            line = self._items.all[line.parent]
            functions.append(line.function)
            rows += [self._rows(line)] if line.paired else []
        for row_a, row_b in rows:
            if suspects.matches(self._a, row_a, suspect):
                return self._reading_line(row_a, row_b, suspect)
        if suspect.hidden_order:
            return self._ordering(found, item, suspect, functions)
        if item.gap >= 0 and not item.starts:
            # What decided it was not seen: it is one of the lines that were seen to read what the source varies.
            seen = suspects.seen(self._a, self._edges(item.gap)[0], suspect)
            if seen:
                return self._reading_line(seen[0], self._partner(seen[0]), suspect, others=seen[1:])
        return None

    def _ordering(
        self,
        found: Cause,
        item: Item,
        suspect: Suspect,
        functions: Sequence[tuple[str, str, int]],
    ) -> Cause | None:
        """The line before it that puts in an order what nobody sees the order of."""
        if item.a < 0:
            return None
        at = self._rows(item)[0]
        row = suspects.before(self._a, at, suspect, functions)
        if row is None and found.kind != "line":
            # A function that is over by now may have handed out what it put in order.
            row = suspects.only(self._a, at, suspect)
        return None if row is None else self._reading_line(row, self._partner(row), suspect)

    def _reading_line(
        self, row_a: int, row_b: int | None, suspect: Suspect, others: Sequence[int] = ()
    ) -> Cause:
        event = self._a.event(row_a)
        sites = [site for row in others if (site := self._a.event(row).site) is not None]
        named = ", ".join(notebook.place(site.file, site.line) for site in sites)
        also = f", and so does {named}" if named else ""
        return Cause(
            kind="reading",
            place=EventPair(event=event, other=None if row_b is None else self._b.event(row_b)),
            detail=f"{suspects.in_words(event, suspect)}{also}; what it runs or decides differs",
            process=self._pair.process,
            other_process=self._pair.other_process,
        )

    def _partner(self, row: int) -> int | None:
        place = row - self._pair.a.start
        found = int(self._alignment.partner[place]) if 0 <= place < len(self._pair.a) else -1
        return None if found < 0 else self._pair.b.start + found

    def _of_row(self, item: Item) -> Cause:
        """A row that made something else of equal values: by itself, by a generator, or by a file."""
        row_a, row_b = self._rows(item)
        draws_a = same_site(self._a, row_a, Kind.DRAW)
        draws_b = same_site(self._b, row_b, Kind.DRAW)
        drawn = self._drawn(draws_a, draws_b)
        if drawn is not None:
            return drawn
        reading = self._reading(row_a, row_b)
        if reading is not None:
            return replace(self._cause("file", item, reading.words), path=reading.path)
        if item.kind is Kind.OP and DRAWING.search(item.name) and not (draws_a or draws_b):
            return self._cause("op", item, _UNSEEN_GENERATOR, incomplete=True)
        reads = (
            Line.read(self._a.strings[int(self._a.meta[row_a])]).reads
            if item.kind is Kind.LINE
            else ()
        )
        return self._cause("op" if item.kind is Kind.OP else "line", item, in_words(reads))

    def _of_gap(self, first: Item) -> Cause:
        """Rows that one run has alone: by what decided about them."""
        gap = [item for item in self._items.all if item.gap == first.gap]
        gap.sort(key=lambda item: (item.paired, item.kind is not Kind.OP, item.number))
        shown = gap[0]
        start_a, start_b = self._edges(first.gap)
        decided = self._deciding(start_a)
        site = shown.site
        sites = (self._id(self._a.strings, site), self._id(self._b.strings, site))
        draws_a = same_site(self._a, start_a, Kind.DRAW, site=sites[0])
        draws_b = same_site(self._b, start_b, Kind.DRAW, site=sites[1])
        drawn = self._drawn(draws_a, draws_b)
        if drawn is None and decided is not None:
            drawn = self._drawn(
                same_site(self._a, decided[0], Kind.DRAW), same_site(self._b, decided[1], Kind.DRAW)
            )
        drawn = drawn or self._drawn_alone(gap)
        if drawn is not None:
            return drawn
        if shown.paired:
            words = f"comes at another place in {VARIED}"
        else:
            here, there = (PINNED, VARIED) if shown.a >= 0 else (VARIED, PINNED)
            words = f"only in {here}"
            instead = [item for item in gap if not item.paired and (item.a < 0) == (shown.a >= 0)]
            if instead:
                words += f", where {there} has {instead[0].name}"
        if decided is not None:
            event = self._a.event(decided[0])
            if event.site is not None:
                last = notebook.place(event.site.file, event.site.line)
                words += f"; the last line that both runs have before it is {last}"
        return self._cause("order", shown, words)

    def _drawn_alone(self, gap: list[Item]) -> Cause | None:
        """The first draw among rows that one run has alone: it moves the generator for all that follows."""
        for item in sorted(gap, key=lambda item: item.number):
            if item.kind is not Kind.LINE or item.paired:
                continue
            alone_in_a = item.a >= 0
            detail = self._a if alone_in_a else self._b
            row = self._pair.a.start + item.a if alone_in_a else self._pair.b.start + item.b
            draws = same_site(detail, row, Kind.DRAW)
            drawn = self._drawn(draws, []) if alone_in_a else self._drawn([], draws)
            if drawn is not None:
                return drawn
        return None

    def _drawn(self, draws_a: list[int], draws_b: list[int]) -> Cause | None:
        """The event in the ledger of a generator that makes draws differ."""
        unequal = unequal_draw(self._a, draws_a, self._b, draws_b)
        if unequal is None:
            return None
        generator, row_a, row_b = unequal
        if row_a is None or row_b is None:
            words = f"drew more: only in {PINNED if row_b is None else VARIED}"
            return self._draw_cause(generator, row_a, row_b, words)
        if self._pair.process != self._pair.other_process:
            words = (
                "drew from a generator in another state; what moved it before can not be compared, since another "
                f"process did this in {VARIED}"
            )
            if generator not in AMBIENT:
                words = "drew from another state: each worker draws from a copy of it, which goes its own way"
            return self._draw_cause(generator, row_a, row_b, words)
        departure = follow(self._a, row_a, self._b, row_b)
        return None if departure is None else self._departed(generator, departure, row_a, row_b)

    def _departed(self, generator: str, departure: Departure, row_a: int, row_b: int) -> Cause:
        """What parted a generator, or a draw from one that nothing seeded."""
        if departure.unseeded:
            # Any draw would differ: the one that matters is the one that made the difference.
            found = self._draw_cause(generator, row_a, row_b, departure.words)
            first = self._draw_cause(generator, departure.a, departure.b, departure.words)
            return replace(found, began=first.place)
        made = None
        if departure.reseeded and departure.a is not None:
            made = self._of_seed(departure.a, generator)
        return made or self._draw_cause(generator, departure.a, departure.b, departure.words)

    def _of_seed(self, row: int, generator: str) -> Cause | None:
        """What made the number that a line seeded a generator with; None where the line made it itself."""
        line = next(
            (
                each
                for each in range(row + 1, min(row + _LINE_AFTER_DRAW, len(self._a)))
                if self._a.kind[each] == Kind.LINE and self._a.site[each] == self._a.site[row]
            ),
            None,
        )
        if line is None:
            return None
        pair = replace(self._pair, a=Span.of(self._a), b=Span.of(self._b))
        alignment = align(pair.a, pair.b)
        explanation = _Explanation(pair, alignment, items_module.read(alignment, line + 1))
        return explanation.behind(line, f"and so was the seed of {generator}")

    def behind(self, line: int, words: str) -> Cause | None:
        """The cause of what a line started from, with what that came to; None where it started from equal values."""
        item = next((each for each in self._items.all if each.a == line), None)
        number = None if item is None else source_of(self._items, item.number, self._own_reason)
        if number is None:
            return None
        found = self._of(number)
        return replace(found, detail="; ".join(filter(None, (found.detail, words))))

    def _draw_cause(
        self, generator: str, row_a: int | None, row_b: int | None, words: str
    ) -> Cause:
        return replace(
            draw_cause(self._a, row_a, self._b, row_b, generator=generator, words=words),
            process=self._pair.process,
            other_process=self._pair.other_process,
        )

    def _reading(self, row_a: int, row_b: int) -> _Reading | None:
        """The first file that the line at two rows read with another content."""
        files_a = self._files(self._a, same_site(self._a, row_a, Kind.FILE))
        files_b = self._files(self._b, same_site(self._b, row_b, Kind.FILE))
        for path in (path for path in files_a if path in files_b):
            digest_a = self._a.after[files_a[path]].tobytes()
            digest_b = self._b.after[files_b[path]].tobytes()
            if digest_a != digest_b:
                words = (
                    f"read {path}, with another content in each run "
                    f"({digest_a.hex()} and {digest_b.hex()}); "
                    f"{self._writer(files_a[path], files_b[path], path)}"
                )
                return _Reading(path=path, words=words)
        return None

    def _files(self, detail: Detail, rows: list[int]) -> dict[str, int]:
        """The last row of each file that was read."""
        return {
            detail.strings[int(detail.name[row])]: row
            for row in rows
            if "r" in detail.strings[int(detail.meta[row])]
        }

    def _writer(self, row_a: int, row_b: int, path: str) -> str:
        """Which line of each run wrote a file before it was read."""
        told = []
        for detail, row, run in ((self._a, row_a, PINNED), (self._b, row_b, VARIED)):
            rows = np.flatnonzero(
                (detail.kind[:row] == Kind.FILE)
                & (detail.name[:row] == self._id(detail.strings, path))
            )
            wrote = [
                each for each in rows.tolist() if "w" in detail.strings[int(detail.meta[each])]
            ]
            site = detail.event(wrote[-1]).site if wrote else None
            if site is not None:
                told.append(f"in {run} it was written by {notebook.place(site.file, site.line)}")
            elif wrote:
                told.append(f"{run} had written it")
            else:
                told.append(f"{run} found it as it was, or was not seen to write it")
        return "; ".join(told)

    def _own_reason(self, item: Item) -> bool:
        """Whether a line itself drew from a generator in another state, read another file, or something outside."""
        known = self._reasons.get(item.number)
        if known is None:
            known = self._reasons[item.number] = item.paired and self._find_reason(item)
        return known

    def _find_reason(self, item: Item) -> bool:
        row_a, row_b = self._rows(item)
        if item.kind is Kind.LINE and Line.read(self._a.strings[int(self._a.meta[row_a])]).reads:
            return True
        draws = same_site(self._a, row_a, Kind.DRAW), same_site(self._b, row_b, Kind.DRAW)
        return (
            unequal_draw(self._a, draws[0], self._b, draws[1]) is not None
            or self._reading(row_a, row_b) is not None
        )

    def _edges(self, gap: int) -> tuple[int, int]:
        """The rows of both runs at which a gap begins."""
        run = self._alignment.runs[gap - 1] if gap else None
        starts = (run.a + run.length, run.b + run.length) if run else (0, 0)
        return self._pair.a.start + starts[0], self._pair.b.start + starts[1]

    def _deciding(self, before: int) -> tuple[int, int] | None:
        """The last line that both runs have before a row of the first."""
        span = self._pair.a
        kinds = self._a.kind[span.start : before] == Kind.LINE
        places = np.flatnonzero(kinds & (self._alignment.partner[: before - span.start] >= 0))
        if not len(places):
            return None
        place = int(places[-1])
        return span.start + place, self._pair.b.start + int(self._alignment.partner[place])

    def _rows(self, item: Item) -> tuple[int, int]:
        return self._pair.a.start + item.a, self._pair.b.start + item.b

    def _place(self, item: Item) -> EventPair:
        row_a, row_b = self._rows(item)
        return EventPair(
            event=self._a.event(row_a) if item.a >= 0 else None,
            other=self._b.event(row_b) if item.b >= 0 else None,
        )

    def _cause(self, kind: CauseKind, item: Item, words: str, *, incomplete: bool = False) -> Cause:
        return Cause(
            kind=kind,
            place=self._place(item),
            detail=words,
            process=self._pair.process,
            other_process=self._pair.other_process,
            incomplete=incomplete,
        )

    @staticmethod
    def _id(strings: tuple[str, ...], text: str) -> int:
        return strings.index(text) if text in strings else len(strings)


def draw_cause(
    a: Detail, row_a: int | None, b: Detail, row_b: int | None, *, generator: str, words: str
) -> Cause:
    """A generator's event that differs, in the main processes; None for the run that has it not."""
    return Cause(
        kind="draw",
        place=EventPair(
            event=None if row_a is None else a.event(row_a),
            other=None if row_b is None else b.event(row_b),
        ),
        detail=words,
        process=MAIN,
        other_process=MAIN,
        generator=generator,
    )


def _what(cause: Cause) -> tuple[object, ...]:
    """The like of a cause: what it is, and at which line."""
    event = cause.place.either
    return cause.kind, event.name, event.site
