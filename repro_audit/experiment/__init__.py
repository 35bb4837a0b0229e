"""The designed experiment: which factors change what the program computes.

Pure logic over an oracle that makes the trials. The floor is an all-pinned run; every verdict is a comparison
with it. `design` has the words, `evidence_store` keeps the evidence, `grouping` clears many factors in few trials,
`confirmation` makes sure of what diverged, `judging` concludes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from repro_audit.errors import BudgetSpentError
from repro_audit.experiment.confirmation import (
    NOISE,
    by_layout,
    convict_all,
    pin,
    pinned_runs,
    remove_all,
    try_alone,
    untested,
)
from repro_audit.experiment.design import (
    Factor,
    Judgement,
    LevelOutcome,
    Levels,
    Oracle,
    Outcome,
    Plan,
    Purpose,
    Result,
    Run,
    RunStatus,
    Setting,
)
from repro_audit.experiment.evidence_store import EvidenceStore, follow, in_step
from repro_audit.experiment.grouping import clear, hold_rounds, rounds, shared, try_shared
from repro_audit.experiment.judging import conclude, unpinned
from repro_audit.experiment.noise import MOST_VIEWS, amid, confirm

__all__ = [
    "Factor",
    "Judgement",
    "LevelOutcome",
    "Levels",
    "Oracle",
    "Outcome",
    "Purpose",
    "Result",
    "Run",
    "RunStatus",
    "Setting",
    "experiment",
    "shared",
    "trials_if_all_hold",
]

UNSURE = "no run was seen to equal the first one, and there was no time to tell why"
UNREPEATED = "a run in which it varied differs, and there was no time to repeat that"
PARTED = (
    "a run in which it varied together with others differs, and there was no time to tell by which"
)
DOUBTS = (UNSURE, UNREPEATED, PARTED)
"""Why a factor is untested though a run in which it varied differs."""


def experiment(
    factors: Sequence[Factor],
    floor: Outcome,
    oracle: Oracle,
    *,
    runs: int = 3,
    fresh: bool = False,
) -> Result:
    """Find the factors that make runs differ from `floor`, an all-pinned run in a fresh interpreter.

    `runs` is how often the pinned setting and each race are repeated. With `fresh`, every trial is asked for in a
    fresh interpreter: for a program that the fast path does not do justice to. Where the oracle has no time for a run
    any more, what was seen by then is judged.
    """
    if floor.status != "ok" or runs < 1:
        raise ValueError(
            f"need a floor that trained and runs >= 1, not {floor.status!r} and {runs}"
        )
    store = _store_of(factors, floor, runs=runs, fresh=fresh)
    try:
        result = follow(_experiment(store), oracle)
    except BudgetSpentError:
        return _so_far(store)
    if not (result.noise and result.faithful):
        return result
    try:
        return _amid_noise(store, result, oracle)
    except BudgetSpentError:
        return result


def _so_far(store: EvidenceStore) -> Result:
    """What follows from the runs that there was time for."""
    odd = [outcome.trial for outcome in store.pinned if store.diverged(outcome)]
    # What differs may be the fast path's doing, unless one of its runs was seen to equal the floor.
    sure = store.fresh or store.held or any(map(store.equal, store.pinned))
    if odd or (store.differing() and not sure):
        noise = (store.floor.trial, odd[0]) if odd and sure else None
        note = NOISE if noise else UNSURE
        return Result(judgements=untested(store, note), unexplained=noise, spent=True)
    judgements = conclude(store)
    repeated = len(store.pinned) >= pinned_runs(store)
    for name, judgement in judgements.items():
        parted = any(name in group for group, _ in store.parted)
        doubtful = judgement.status == "broke" and not (
            store.factors[name].yardstick or (repeated and judgement.confidence == "proven")
        )
        if doubtful or (parted and judgement.status == "untested"):
            note = UNREPEATED if doubtful else PARTED
            judgements[name] = Judgement(id=name, status="untested", note=note)
    return Result(judgements=judgements, spent=True)


def trials_if_all_hold(factors: Sequence[Factor], *, runs: int) -> int:
    """How many trials `experiment` takes where no factor changes anything; more where one does."""
    grouped = [factor for factor in factors if factor.grouped]
    rerun = [factor for factor in grouped if factor.scope == "rerun"]
    others = [factor for factor in grouped if factor.scope != "rerun"]
    alone = [factor for factor in factors if not factor.grouped]
    together = shared(factors) if rerun else {}
    of_others = runs if any(factor.levels.race for factor in others) else 1
    return sum(
        (
            len(rounds(rerun, at_least=runs)) or runs - 1,
            len(rounds(others, at_least=of_others)),
            bool(rerun and others),
            bool(together),
            *(
                runs if factor.levels.races_at(level) else 1
                for factor in alone
                for level in factor.levels.varied
                if together.get(factor.id) != level
            ),
        )
    )


def _store_of(
    factors: Iterable[Factor], floor: Outcome, *, runs: int, fresh: bool
) -> EvidenceStore:
    named = {factor.id: factor for factor in factors}
    return EvidenceStore(factors=named, floor=floor, runs=runs, fresh=fresh)


def _amid_noise(store: EvidenceStore, result: Result, oracle: Oracle) -> Result:
    """Judge by what pinned runs have in common, where they differ in the rest."""
    trials = result.noise
    unpinned = {name for trial in trials for name in oracle.outcome(trial).unpinned}
    causes = [factor for factor in store.factors.values() if factor.id in unpinned]
    at_it = {*unpinned, *(j.id for j in result.judgements.values() if j.status == "broke")}
    others = [factor for factor in store.factors.values() if factor.id not in at_it]
    for _ in range(MOST_VIEWS):
        view = oracle.narrowed(trials)
        if view is None:
            break
        mine = _store_of(others, view.outcome(trials[0]), runs=store.runs, fresh=store.fresh)
        seen = follow(_experiment(mine), view)
        judgements = None if seen.noise else follow(confirm(mine, seen.judgements), view)
        if judgements is not None:
            return amid(result, judgements, view.extent, causes)
        trials = tuple(dict.fromkeys((*trials, *seen.noise, *(each.trial for each in mine.pinned))))
    return amid(result, None, "", causes)


def _experiment(store: EvidenceStore) -> Plan[Result]:
    """Go from one trial with everything varied to a judgement of each factor.

    With `hash-seed` and `clock` of the scope `rerun`, `num-workers` of a wider one, and a guilty clock, it runs:

    1. Both of `rerun` at once: it differs from the floor.
    2. `hash-seed` alone, whose interpreter is warm now: it is equal, and so the base of what follows.
    3. Half of the first group (equal), and beside it each level of `num-workers` (all equal).
    4. The other half, which is `clock`: it differs. The group without it is equal, so nobody else is in it.
    5. What holds, across scopes, at once: it is equal.
    6. The pinned setting twice (equal, else nobody is blamed), then `clock` with all else pinned: it differs, proven.
    """
    grouped = [factor for factor in store.factors.values() if factor.grouped]
    rerun = [factor for factor in grouped if factor.scope == "rerun"]
    others = [factor for factor in grouped if factor.scope != "rerun"]
    alone = [factor for factor in store.factors.values() if not factor.grouped]

    groups = rounds(rerun, at_least=store.runs)
    first = (yield from store.observe(groups[:1]))[0] if groups else None
    warm = {factor.id: factor.levels.of_round(0) for factor in rerun if factor.levels.interpreters}
    # The interpreters that the first group needed are warm: where they alone change nothing, they serve on.
    proof = first
    if warm not in ({}, *groups[:1]) and (first is None or not store.equal(first)):
        (proof,) = yield from store.observe([warm])
    if proof is not None and store.equal(proof):
        store.base = warm
        store.shared = shared(store.factors.values())
    else:
        noise = yield from pin(store, store.runs - 1)
        if noise is not None:
            return (yield from by_layout(store, noise))

    racing = any(factor.levels.race for factor in others)
    together = {factor.id: factor.levels.open for factor in grouped} if rerun and others else {}
    # In one go with the rest, though it is looked into last: it costs a clean program no time.
    soon = [together] if together and first is not None and store.equal(first) else []
    *_, outcomes = yield from in_step(
        [
            hold_rounds(store, groups, first),
            hold_rounds(store, rounds(others, at_least=store.runs if racing else 1)),
            *(try_alone(store, factor) for factor in alone),
            try_shared(store),
            store.observe(soon),
        ]
    )
    yield from clear(store, together, next(iter(outcomes or ()), None))
    noise = yield from convict_all(store)
    if noise is not None:
        return (yield from by_layout(store, noise))
    yield from remove_all(store)
    return Result(
        judgements=conclude(store),
        unexplained=_unexplained(store) if unpinned(store) is None else None,
    )


def _unexplained(store: EvidenceStore) -> tuple[str, str] | None:
    """Return a divergence that was seen once, and that no factor accounts for."""
    seen = [outcome.trial for _, outcome in store.flakes if store.diverged(outcome)]
    return (store.floor.trial, seen[0]) if seen else None
