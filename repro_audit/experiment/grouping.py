"""Group testing: clear many factors in one trial, and split a group only where it fails.

A group is done when what is left of it, with the guilty pinned, equals the floor. So a conjunction is found
even in a group that holds a plain culprit as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from repro_audit.experiment.design import Conjunction, Factor, Outcome, Plan, Purpose, Setting
from repro_audit.experiment.evidence_store import EvidenceStore, without

MOST_CONJUNCTIONS = 4
"""Enough to tell somebody that factors act together; it bounds the search among many that do."""


def rounds(pool: Sequence[Factor], at_least: int) -> list[Setting]:
    """Vary a pool of factors all at once, as often as it takes to see each of their levels.

    A factor stays out of the rounds that others still need, once all its levels were seen and it was in `at_least`.
    """
    if not pool:
        return []
    needed = {factor.id: max(at_least, len(factor.levels.varied)) for factor in pool}
    return [
        {factor.id: factor.levels.of_round(index) for factor in pool if index < needed[factor.id]}
        for index in range(max(needed.values()))
    ]


def shared(factors: Iterable[Factor]) -> Setting:
    """Levels that need an interpreter each, and may have one together; a group's first has one, the others' base."""
    needed = {each.id: each.levels.interpreters[int(each.grouped) :] for each in factors}
    levels = {name: levels[0] for name, levels in needed.items() if levels}
    return levels if len(levels) > 1 else {}


def try_shared(store: EvidenceStore) -> Plan[None]:
    """Try the levels that share an interpreter, and each by itself where that does not equal the floor."""
    if not store.shared:
        return
    (outcome,) = yield from store.observe([store.shared])
    if not store.equal(outcome):
        apart = [{name: level} for name, level in store.shared.items()]
        store.shared = {}
        yield from store.observe(apart)


def hold_rounds(
    store: EvidenceStore, groups: Sequence[Setting], first: Outcome | None = None
) -> Plan[None]:
    """Test every round of a pool; `first` is the outcome of its first round, where it is known.

    A culprit found in one round is left out of the following ones, and a round that has nothing new is, too.
    """
    if first is not None:
        yield from clear(store, groups[0], first)
        groups = groups[1:]
    left: list[Setting] = []
    for group in map(store.unsuspected, groups):
        if group.items() & store.shared.items():
            group = {**group, **store.shared}  # noqa: PLW2901 - in the interpreter that is there
        # What looked for a culprit has shown much of what the rounds are for.
        if group and (not store.troubled() or store.wanting(group, beside=left)):
            left.append(group)
    outcomes = yield from store.observe(left)
    for group, outcome in zip(left, outcomes, strict=True):
        if not store.equal(outcome):
            yield from clear(store, group, outcome)


def clear(store: EvidenceStore, group: Setting, outcome: Outcome | None = None) -> Plan[None]:
    """Find what makes a group fail, until what is left of it equals the floor; `outcome` is the group's, if known."""
    todo: list[Setting] = [group]
    tried: dict[frozenset[tuple[str, str]], Outcome] = {}
    while todo:
        left = store.unsuspected(todo.pop(0))
        known = store.known_conjunction(left)
        key = frozenset(left.items())
        if known is not None:
            todo += _spared(store, left, known)
            continue
        if not left or key in tried:
            continue
        if outcome is None or left != group:
            (outcome,) = yield from store.observe([left])
        tried[key] = outcome
        if store.equal(outcome) or len(left) == 1:
            continue
        if not (yield from seek(store, left)):
            for part, failure in (yield from split(store, left, outcome)):
                yield from explain(store, part, failure)
        todo.append(left)  # without what was just found; dropped as tried, if that is nothing


def _spared(store: EvidenceStore, group: Setting, known: Setting) -> list[Setting]:
    """Return what to test next of a group that holds a known conjunction.

    Pinning any one member undoes it, and others may share the rest; with many known, all members are pinned.
    """
    if len(store.conjunctions) >= MOST_CONJUNCTIONS:
        return [without(group, known)]
    return [without(group, [member]) for member in known if member in group]


def seek(store: EvidenceStore, group: Setting) -> Plan[bool]:
    """Look for one culprit in a failing group, a trial for each halving; False where no member fails by itself.

    Where the first half holds, the second is taken to fail.
    """
    while len(group) > 1:
        first, second = halves(group)
        (outcome,) = yield from store.observe([first])
        group = second if store.equal(outcome) else first
        if len(group) == 1 and group == first:
            return True
    (outcome,) = yield from store.observe([group])
    return not store.equal(outcome)


def split(
    store: EvidenceStore, group: Setting, outcome: Outcome
) -> Plan[list[tuple[Setting, Outcome]]]:
    """Halve a failing group down to single factors; return the parts that fail only as a whole."""
    failing, whole = [(group, outcome)], []
    while failing:
        parts = [half for part, _ in failing for half in halves(part)]
        outcomes = yield from store.observe(parts)
        failed = [not store.equal(half) for half in outcomes]
        whole += [
            part
            for part, *either in zip(failing, failed[::2], failed[1::2], strict=True)
            if not any(either)
        ]
        failing = [
            (part, half)
            for part, half, bad in zip(parts, outcomes, failed, strict=True)
            if bad and len(part) > 1
        ]
    return whole


def halves(group: Setting) -> tuple[Setting, Setting]:
    """Cut a group of two or more in two."""
    levels = list(group.items())
    middle = len(levels) // 2
    return dict(levels[:middle]), dict(levels[middle:])


def explain(store: EvidenceStore, part: Setting, failure: Outcome) -> Plan[None]:
    """Find out why a group failed both of whose halves hold: a race, a conjunction, or a flake."""
    if len(store.conjunctions) >= MOST_CONJUNCTIONS:
        return
    races = [{member: part[member]} for member in store.races(part)]
    # Twice as often as usual, since something was seen to race.
    yield from store.observe(races * (2 * store.runs), "race")
    if store.unsuspected(part) != part:
        return
    smallest = yield from reduce(store, {**store.base, **part})
    if smallest is None:
        store.flakes.append((part, failure))


def reduce(store: EvidenceStore, setting: Setting) -> Plan[Setting | None]:
    """Find a smallest setting that still fails; None where the failure does not come back.

    All levels but races are deterministic, so with a race on board only what fails every time counts: an
    occasional failure says nothing about the others.
    """
    failures = yield from _failures(store, setting)
    smallest = setting if failures else {}
    # Races go first: without them, one run each is enough.
    for member in sorted(smallest, key=lambda member: not store.factors[member].levels.race):
        rest = without(smallest, [member])
        fewer = (yield from _failures(store, rest)) if rest else []
        if fewer:
            smallest, failures = rest, fewer
    if len(smallest) > 1:
        again = yield from _failures(store, smallest, repeat=True)
        if not again:
            return None
        store.conjunctions.append(Conjunction(setting=smallest, failures=(*failures, *again)))
    return smallest or None


def _failures(
    store: EvidenceStore, setting: Setting, *, repeat: bool = False
) -> Plan[list[Outcome]]:
    """Run a setting, several times if it holds a race; return the outcomes if all are failures."""
    times = store.runs if store.races(setting) else 1
    purpose: Purpose | None = "repeat" if repeat else None
    outcomes = yield from store.observe([setting] * times, purpose, based=False)
    return [] if any(map(store.equal, outcomes)) else outcomes
