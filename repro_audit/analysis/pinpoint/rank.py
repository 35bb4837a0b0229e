"""Which of the places where a difference begins is to blame for the one that was found between two steps. Pure.

A program's rows also differ where nothing comes of it: a clock that is only printed, a tensor that is only logged. So
a place is set aside where its difference can't reach what was computed at the step and phase that broke, as long as
another's can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

from repro_audit.analysis.compare import Mismatch
from repro_audit.analysis.pinpoint.flow import Flow, last
from repro_audit.analysis.pinpoint.items import NOWHERE, Item, Items
from repro_audit.storage.events import Kind
from repro_audit.storage.trace import Phase

MAX_CANDIDATES = 16
"""Of more places where a difference begins, those behind are not looked at."""

_REACHES, _RUNS_OPS, _DIES, _MOVES = range(4)
"""How far a difference goes, best first: to the end; into ops, whose way can't be followed; nowhere; and rows that
change places, all of them equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Places where a difference begins, as items."""

    first: int
    """The most likely."""
    independent: tuple[int, ...]
    """Those besides the first that have not got their difference from it, and that come to something too."""
    path: tuple[int, ...]
    """From the first to the last row that has its difference, or to the one that was to be explained."""


def rank(items: Items, first: Mismatch, own_reason: Callable[[Item], bool]) -> Ranking | None:
    """Rank the places; None where all rows that differ have started from something else already.

    Args:
        items: the window.
        first: what is to be explained.
        own_reason: whether a line drew or read something else itself.
    """
    begins = list(islice(_begins(items, own_reason), MAX_CANDIDATES))
    if not begins:
        return None
    is_initial = first.phase is Phase.INIT
    makers = _makers(items, first.meta_a) if is_initial else []
    # The last part of its name is what a module keeps a parameter under.
    setters = _setters(items, first.name.rpartition(".")[2]) if is_initial and not makers else []
    ends = makers or setters or _ends(items, first)
    flows: dict[int, Flow] = {}
    reaches: dict[int, int] = {}
    explained: set[int] = set()
    independent = []
    for number in begins:
        if number in explained and number not in setters:
            continue
        flow = flows[number] = Flow(items, number, own_reason)
        reaches[number] = _reach(items, flow, ends, first)
        if reaches[number] == _REACHES:
            independent.append(number)
            explained.update(flow.came_from)
    candidates = sorted(
        flows,
        key=lambda number: (
            reaches[number],
            number not in setters,
            # Another order comes of a choice, so it is last.
            items.all[number].gap >= 0 and items.all[number].paired,
            number,
        ),
    )
    chosen = _first_of_its_kind(items, candidates)
    flow = flows[chosen]
    reached = [end for end in ends if end in flow.came_from]
    return Ranking(
        first=chosen,
        independent=tuple(independent[1:]),
        path=tuple(flow.path(reached[0] if reached else max(flow.came_from))),
    )


def _first_of_its_kind(items: Items, candidates: list[int]) -> int:
    """The first time that the most likely line or op ran: of the samples of a batch, say."""
    best = items.all[candidates[0]]
    return min(
        number
        for number in candidates
        if (items.all[number].site, items.all[number].name) == (best.site, best.name)
    )


def source_of(items: Items, number: int, own_reason: Callable[[Item], bool]) -> int | None:
    """The first place that an item can have its difference from; None where it started from equal things."""
    if not items.all[number].before:
        return None
    for begin in islice(_begins(items, own_reason), MAX_CANDIDATES):
        if begin < number and number in Flow(items, begin, own_reason).came_from:
            return begin
    return None


def _begins(items: Items, own_reason: Callable[[Item], bool]) -> Iterable[int]:
    """Where a difference may begin: rows that made it out of equal things, and stretches that one run has alone.

    In the example of `Flow._follow` it is the op `rand`. The op `add` started from something else already, and would
    count only if its line drew a number for it. The `return` and line 12 made something else of equal names, but they
    ran what did: only a reason of its own lets line 12 count. `now = time()` before all that is a second beginning.
    Of ten rows in one stretch that only one run has, the first counts.
    """
    gaps = set()
    lines: dict[tuple[int, str], Item] = {}
    for number in range(items.stop):
        item = items.all[number]
        if item.kind is Kind.LINE and not item.returned:
            lines[item.frame, item.site] = item
        if item.gap >= 0 and item.gap not in gaps:
            gaps.add(item.gap)
            if item.gap not in items.transport:
                yield number
        elif item.kind is Kind.OP and item.before and item.after and own_reason(item):
            yield number  # its line drew a number for it
        elif item.starts:
            line = lines.get((item.frame, item.site)) if item.returned else item
            follows = line is not None and (
                line.ran or (item.returned and (line.before or line.after))
            )
            if not follows or (not item.returned and own_reason(item)):
                yield number


def _makers(items: Items, form: str | None) -> list[int]:
    """The first op that left a parameter of a form different; those of a model are made one after the other."""
    made = (
        number
        for number in range(items.stop)
        if items.all[number].kind is Kind.OP
        and items.all[number].after
        and items.all[number].form == form
    )
    return list(islice(made, 1))


def _setters(items: Items, leaf: str) -> list[int]:
    """The first line that left the attribute different that a parameter is."""
    name = f"self.{leaf}"
    set_here = (
        number
        for number in range(items.stop)
        if items.all[number].kind is Kind.LINE
        and items.all[number].after
        and name in items.all[number].sets
    )
    return list(islice(set_here, 1)) if leaf else []


def _ends(items: Items, first: Mismatch) -> list[int]:
    """What a difference must reach: the last op of the phase that differs, or the last value that a call returned."""
    here = [
        number
        for number in range(items.stop)
        if (items.all[number].step, items.all[number].phase) == (first.step, first.phase)
    ]
    for numbers in (here, range(items.stop)):
        op = last(items, numbers, returned=False)
        value = last(items, numbers, returned=True)
        # What constructors and hooks return is not what the later phases and the beginning are about.
        kept = [op, value] if first.phase in {Phase.DATA, Phase.FORWARD} or op < 0 else [op]
        found = [each for each in kept if each >= 0]
        if found:
            return found
    return []


def _spreads(items: Items, flow: Flow) -> bool:
    """Whether a difference was still going on where the items break off."""
    begin, end = min(flow.came_from), max(flow.came_from)
    return end - begin > (items.stop - begin) // 2


def _reach(items: Items, flow: Flow, ends: list[int], first: Mismatch) -> int:
    """How far a difference goes, as one of the four above.

    Say the loss is to be explained, so the last op of the forward is among the `ends`. From `rand` in the example of
    `Flow._follow` the difference gets to `sum`: it reaches. From `now = time()`, which is only printed, it gets to no
    op: it dies. If `now` were made a tensor that is only logged, it would run ops, whose way can't be followed. Rows
    that only stand in another order, and are equal, move.
    """
    reached = [items.all[number] for number in flow.came_from]
    if all(item.gap >= 0 and not (item.before or item.after) for item in reached):
        return _MOVES
    if any(end in flow.came_from for end in ends):
        return _REACHES
    ops = [item for item in reached if item.kind is Kind.OP and item.after]
    # An op without a line around may come to something that no line tells of: a gradient, a parameter.
    place = first.step, first.phase
    unseen = [item for item in ops if item.parent == NOWHERE and (item.step, item.phase) == place]
    if unseen or (not items.whole and _spreads(items, flow)):
        return _REACHES
    return _RUNS_OPS if ops else _DIES
