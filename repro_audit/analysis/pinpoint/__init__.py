"""Two runs' detailed events -> the first cause of their difference, or None where nothing that was seen differs. Pure.

`align` says which rows belong together, `items` and `flow` where a difference can go, `rank` which of the places where
one begins is to blame, `ledger` what a random generator went through, `causes` what made the difference there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from repro_audit.analysis.compare import Mismatch
from repro_audit.analysis.pinpoint import suspects
from repro_audit.analysis.pinpoint.align import Span
from repro_audit.analysis.pinpoint.causes import Pair, draw_cause, explain
from repro_audit.analysis.pinpoint.draws import MADE, events, follow
from repro_audit.analysis.pinpoint.fetches import Fetch, fetches, parted, sample_at, taken
from repro_audit.analysis.pinpoint.model import Cause, EventPair
from repro_audit.storage.columns import ROWS_PER_FLUSH
from repro_audit.storage.events import MAIN, Detail, Kind
from repro_audit.storage.reads import Suspect
from repro_audit.storage.trace import Phase, Trace

__all__ = ["Cause", "Run", "address", "alike_rows", "pinpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The events of one run."""

    main: Detail
    workers: Mapping[str, Detail] = field(default_factory=dict)
    """Of the loaders' workers, by their processes' names."""

    @property
    def processes(self) -> dict[str, Detail]:
        """All, the one that trains first."""
        return {MAIN: self.main, **self.workers}


def pinpoint(
    a: Run,
    b: Run,
    first: Mismatch,
    *,
    fetch: str | None = None,
    trace: Trace | None = None,
    suspect: Suspect | None = None,
) -> Cause | None:
    """The cause of the first mismatch between two runs; None where no event differs before it.

    Say `batch.0` of step 2 differs, and workers made it. Its name, `0.0: 4, 7`, leads to the rows of its fetching in
    each run. The first that made a difference of equal things is a line that draws from a generator in another state.
    `follow` goes back along that generator to the first draw or seed that differs; where the worker had it from the
    process that started it, `_inherited` goes on there. Had the runs fetched other indices, what decided about them
    would be looked for in the main process, before that batch. An output that differs in another phase is looked for
    in the main process alone, up to the mark of its observation.

    Args:
        a: the first run, the reference.
        b: the second.
        first: what differs between their traces.
        fetch: the name of the batch that `first` is about, as its row in the first run has it, where that is known.
        trace: of the first run, which tells that batch where `fetch` does not.
        suspect: what the line to blame does, where that is known.
    """
    found = _found(a, b, first, fetch=fetch, trace=trace, suspect=suspect)
    if suspect and (found is None or found.incomplete):
        row = suspects.only(a.main, _stop(a.main, first), suspect)
        if row is not None:
            event = a.main.event(row)
            return Cause(
                kind="reading",
                place=EventPair(event=event, other=None),
                detail=f"{suspects.in_words(event, suspect)}, and no other line that was seen does",
                process=MAIN,
                other_process=MAIN,
            )
    return found


def _found(
    a: Run,
    b: Run,
    first: Mismatch,
    *,
    fetch: str | None,
    trace: Trace | None,
    suspect: Suspect | None,
) -> Cause | None:
    stop = _stop(a.main, first)
    main = Pair(a=Span.of(a.main), b=Span.of(b.main), process=MAIN, other_process=MAIN)
    if first.phase is not Phase.DATA:
        return _explain(main, first, stop, suspect)
    mine, theirs = fetches(a.processes), fetches(b.processes)
    if fetch is None and trace is not None:
        fetch = taken(mine, trace, first)
    unshared = parted(mine, theirs, fetch)
    if unshared is not None and (unshared.process != MAIN or unshared.span.start < stop):
        # Other indices: what decided about them came before the batch was fetched.
        before = unshared.span.start if unshared.process == MAIN else stop
        found = _explain(main, first, before, suspect)
        if found is not None:
            return found
    found = _of_batch(mine, theirs, first, fetch, suspect)
    if found is not None and found.kind == "draw" and found.process != MAIN:
        found = _inherited(found, a, b)
    if found is not None and not found.incomplete:
        return found
    # What the samples are made of may have differed before any was fetched.
    earlier = _explain(main, first, stop, suspect)
    result = found if earlier is None or (found is not None and earlier.incomplete) else earlier
    if (result is None or result.incomplete) and first.phase in {Phase.INIT, Phase.DATA}:
        return _made_apart(a.main, b.main, stop) or result
    return result


def _made_apart(a: Detail, b: Detail, stop: int) -> Cause | None:
    """The first generator that was another one from the beginning: an object may hide what was drawn from it."""
    found = []
    for name in dict.fromkeys(a.name[:stop][a.kind[:stop] == Kind.DRAW].tolist()):
        generator = a.strings[name]
        mine, theirs = events(a, generator, stop), events(b, generator, len(b))
        departure = follow(a, int(mine[-1]), b, int(theirs[-1])) if len(theirs) else None
        # That it was another one from the beginning, rather than parted by what differed before.
        if departure is not None and (departure.unseeded or departure.reseeded):
            found.append((departure, generator))
    if not found:
        return None
    departure, generator = min(found, key=lambda each: each[0].a or 0)
    return draw_cause(a, departure.a, b, departure.b, generator=generator, words=departure.words)


def _inherited(found: Cause, a: Run, b: Run) -> Cause:
    """Of a generator that a worker has from the process that started it, what parted it there; else what was found."""
    rows = []
    for run, event, process in (
        (a, found.place.event, found.process),
        (b, found.place.other, found.other_process),
    ):
        if event is None:
            return found
        detail = run.processes[process]
        if detail.strings[int(detail.meta[event.index])] != MADE:
            return found
        state = detail.after[event.index]
        known = np.flatnonzero((run.main.kind == Kind.DRAW) & (run.main.after == state))
        if not len(known):
            return found
        rows.append(int(known[-1]))
    departure = follow(a.main, rows[0], b.main, rows[1])
    if departure is None:
        return found
    main = draw_cause(
        a.main,
        departure.a,
        b.main,
        departure.b,
        generator=a.main.strings[int(a.main.name[rows[0]])],
        words=departure.words,
    )
    return replace(main, where_from=found.where_from, independent=found.independent)


def _of_batch(
    mine: list[Fetch],
    theirs: list[Fetch],
    first: Mismatch,
    fetch: str | None,
    suspect: Suspect | None,
) -> Cause | None:
    """The cause within the fetching of a batch, whichever processes fetched it."""
    by_name = {each.name: each for each in reversed(theirs)}
    incomplete = None
    for one in mine:
        other = by_name.get(one.name)
        if other is None or fetch not in {None, one.name}:
            continue
        pair = Pair(a=one.span, b=other.span, process=one.process, other_process=other.process)
        found = _explain(pair, first, len(one.span), suspect)
        if found is not None and not found.incomplete:
            return found
        incomplete = incomplete or found
    return incomplete


def _explain(pair: Pair, first: Mismatch, stop: int, suspect: Suspect | None) -> Cause | None:
    """The cause within a pair of stretches, and the sample that was being fetched when it did its work."""
    found = explain(pair, first, stop, suspect)
    if found is None:
        return None
    # Where something was drawn, rather than where its generator had parted.
    is_draw = found.kind == "draw" and len(found.where_from) > 1
    acted = found.where_from[1] if is_draw else found.place
    if acted.event is not None:
        return replace(found, sample=sample_at(pair.a.detail, acted.event.index))
    return replace(found, sample=sample_at(pair.b.detail, acted.either.index))


def _stop(detail: Detail, first: Mismatch) -> int:
    """The row behind all that can have made a mismatch: its mark, or the last of its step and phase before that.

    Gradients are observed when the optimizer is done with them.
    """
    marks = (detail.kind == Kind.MARK) & (detail.step == first.step) & (detail.phase == first.phase)
    named = [detail.strings[int(each)] for each in detail.name[marks]]
    places = np.flatnonzero(marks)[[name == first.name for name in named]]
    end = int(places[first.occurrence]) if first.occurrence < len(places) else len(detail)
    for stop in range(end, 0, -ROWS_PER_FLUSH):
        start = max(0, stop - ROWS_PER_FLUSH)
        here = (detail.step[start:stop] == first.step) & (detail.phase[start:stop] == first.phase)
        last = np.flatnonzero(here & (detail.kind[start:stop] <= Kind.LINE))
        if len(last):
            return start + int(last[-1]) + 1
    return end


_MOST_ALIKE = 64


def alike_rows(detail: Detail, index: int) -> list[int]:
    """The rows of the same thing as one: the same op, line and module in any step; at most 64, and always this one."""
    same = np.ones(len(detail), dtype=np.bool_)
    for column in (detail.kind, detail.phase, detail.name, detail.site, detail.module):
        same &= column == column[index]
    rows: list[int] = np.flatnonzero(same)[:_MOST_ALIKE].tolist()
    return rows if index in rows else [*rows, index]


def address(detail: Detail, index: int) -> tuple[int, int, str, int]:
    """Where the values of an op are fetched from in a further run: step, phase, `name|site|module`, occurrence.

    The occurrence counts the ops before it that are the same in all of these.
    """
    occurrence = 0
    for start in range(0, index, ROWS_PER_FLUSH):
        rows = slice(start, min(start + ROWS_PER_FLUSH, index))
        same = detail.kind[rows] == Kind.OP
        for column in (detail.step, detail.phase, detail.name, detail.site, detail.module):
            same &= column[rows] == column[index]
        occurrence += int(same.sum())
    strings = detail.strings
    name, site, module = (
        strings[int(column[index])] for column in (detail.name, detail.site, detail.module)
    )
    return (
        int(detail.step[index]),
        int(detail.phase[index]),
        f"{name}|{site}|{module}",
        occurrence,
    )
