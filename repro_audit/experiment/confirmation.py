"""Conviction: nobody is blamed before repeats, pinned runs and removals have had their say."""

from __future__ import annotations

from collections.abc import Iterable

from repro_audit.experiment.design import (
    Factor,
    Judgement,
    LevelOutcome,
    Outcome,
    Plan,
    Result,
    Run,
    Setting,
)
from repro_audit.experiment.evidence_store import EvidenceStore, in_step, tried
from repro_audit.experiment.grouping import clear, reduce, rounds
from repro_audit.experiment.judging import finding, spared

NOISE = "two runs with everything pinned differ, so a difference proves nothing of this source"
SCEPTICAL = 3
"""Times as many runs as usual are made of a race that seems to be none."""


def pin(store: EvidenceStore, count: int) -> Plan[Result | None]:
    """See to it that the pinned setting was repeated `count` times; a result means: blame nobody.

    Either the fast path is not faithful, or the program differs from run to run with everything pinned.
    """
    missing = max(1, count) - len(store.pinned)
    outcomes = yield from store.run([{}] * missing, "pinned")
    store.pinned += outcomes
    odd = [outcome for outcome in outcomes if not store.equal(outcome)]
    if not odd:
        return None
    if not store.fresh:
        (again,) = tried((yield [Run(setting={}, purpose="floor", fresh=True)]))
        if store.equal(again):
            return Result(judgements=untested(store), noise=_trained(store, odd), faithful=False)
        odd = [again, *odd]
    witness = next((outcome for outcome in odd if store.diverged(outcome)), odd[0])
    return Result(
        judgements=untested(store),
        unexplained=(store.floor.trial, witness.trial),
        noise=_trained(store, [*store.pinned, *odd]),
    )


def _trained(store: EvidenceStore, outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    trained = [outcome.trial for outcome in outcomes if outcome.status == "ok"]
    return tuple(dict.fromkeys((store.floor.trial, *trained)))


def by_layout(store: EvidenceStore, noise: Result) -> Plan[Result]:
    """Where pinned runs differ, or forked ones from fresh ones, blame the factor that nothing pins if it explains that.

    Runs forked from one process share its layout, so they agree at each of its levels, and not from one to another.
    """
    for factor in store.factors.values():
        if factor.levels.unpinnable is None:
            continue
        times = store.runs + 1
        moved = {factor.id: factor.levels.unpinnable}
        outcomes = yield from store.run([{}] * times + [moved] * times, "pinned")
        digests = [outcome.digest for outcome in outcomes if outcome.status == "ok"]
        here, there = set(digests[:times]), set(digests[times:])
        if len(digests) == 2 * times and len(here) == len(there) == 1 and here != there:
            trial = outcomes[times].trial
            level = LevelOutcome(level=moved[factor.id], diverged=True, trial=trial, status="ok")
            judgement = Judgement(
                id=factor.id,
                status="broke",
                levels=(level,),
                confidence="suspected",
                pair=(outcomes[0].trial, trial),
                repeat=outcomes[-1].trial,
            )
            return Result(
                judgements=spared({**noise.judgements, factor.id: judgement}, factor),
                noise=tuple(dict.fromkeys((*noise.noise, *(each.trial for each in outcomes)))),
            )
    return noise


def untested(store: EvidenceStore, note: str = NOISE) -> dict[str, Judgement]:
    """Say of each factor that nothing is known, and why."""
    return {name: Judgement(id=name, status="untested", note=note) for name in store.factors}


def try_alone(store: EvidenceStore, factor: Factor) -> Plan[None]:
    """Run each level of a factor on its own, a race several times; what was run already counts."""
    missing = [
        {factor.id: level}
        for level in factor.levels.varied
        if store.shared.get(factor.id) != level
        for _ in range(_times(store, factor, level) - len(store.alone.get((factor.id, level), ())))
    ]
    yield from store.observe(missing, "race" if factor.levels.race else "single")


def _times(store: EvidenceStore, factor: Factor, level: str) -> int:
    return store.runs if factor.levels.races_at(level) else 1


def convict_all(store: EvidenceStore) -> Plan[Result | None]:
    """Try every suspect, beside the pinned runs; a result means that nobody can be blamed."""
    if not store.troubled():
        return None
    done: set[str] = set()
    pinned = store.runs - 1
    while True:
        suspects = [factor for factor in store.suspects() if factor.id not in done]
        trials = [_convict(store, factor) for factor in suspects]
        noise, *_ = yield from in_step([pin(store, pinned), *trials])
        if noise is not None:
            return noise
        done.update(factor.id for factor in suspects)
        if any(store.base.items() & each.setting.items() for each in store.conjunctions):
            # Who needs the base stood for one who is guilty by itself: groups were cleared without it.
            store.base = {}
            grouped = [factor for factor in store.factors.values() if factor.grouped]
            together = {factor.id: factor.levels.open for factor in grouped}
            more = [group for group in rounds(grouped, at_least=1) if group != together]
            for group in (together, *more):
                yield from clear(store, group)
        elif not suspects:
            break
    # What differs only at times is held against as many pinned runs.
    return (yield from pin(store, pinned_runs(store)))


def pinned_runs(store: EvidenceStore) -> int:
    """How many pinned runs it takes until somebody is blamed."""
    flaky = store.runs if store.flakes else 0
    totals = (store.tally(level)[1] for level in store.alone if store.unsteady(level))
    return max(1, store.runs - 1, flaky, *totals)


def _convict(store: EvidenceStore, factor: Factor) -> Plan[None]:
    """Run a suspect alone at every level, in parts where one diverged, and again where it diverged."""
    yield from try_alone(store, factor)
    guilty = [level for level in factor.levels.varied if _seen(store, factor, level)]
    parts = [part for level in guilty for part in factor.levels.parts.get(level, ())]
    yield from store.observe([{factor.id: part} for part in parts])
    if guilty and not factor.levels.races_at(guilty[0]):
        first = guilty.pop(0)
        yield from _repeat(store, factor, first)
        if _seen(store, factor, first) and not store.unsteady((factor.id, first)):
            return  # one conviction is enough, where nothing speaks for chance
    yield from in_step([_repeat(store, factor, level) for level in guilty])


def _seen(store: EvidenceStore, factor: Factor, level: str) -> bool:
    return any(map(store.diverged, store.alone.get((factor.id, level), ())))


def _repeat(store: EvidenceStore, factor: Factor, level: str) -> Plan[None]:
    """Repeat a divergence with everything else pinned, the base too; find out if it needs the base."""
    single = {factor.id: level}
    evidence = store.alone[factor.id, level]
    if factor.levels.races_at(level):
        yield from store.observe([single] * store.runs, "race", based=False)
        if not factor.levels.forced and not store.unsteady((factor.id, level)):
            # Another result than the pinned one, and always the same: no race, unless it shows rarely.
            yield from store.observe([single] * (SCEPTICAL * store.runs), "race", based=False)
        return
    (again,) = yield from store.observe([single], "repeat", based=False)
    if store.base and store.equal(again):
        smallest = yield from reduce(store, {**store.base, **single})
        if smallest not in (None, single):
            evidence[:] = [outcome for outcome in evidence if store.equal(outcome)]
            return
    if store.unsteady((factor.id, level)):
        yield from store.observe([single] * store.runs, "repeat", based=False)


def remove_all(store: EvidenceStore) -> Plan[None]:
    """Take each suspect that can be removed out of the pair that diverged, and run it again."""
    yield from in_step([_remove(store, factor) for factor in store.factors.values()])


def _remove(store: EvidenceStore, factor: Factor) -> Plan[None]:
    if factor.levels.removal is None:
        return
    settings: dict[str, Setting] = {}
    if factor.levels.judged_by is None:
        settings = {
            level: {factor.id: factor.levels.removed(level)} for level in _guilty(store, factor)
        }
    else:
        name, level = factor.levels.judged_by
        if name in store.factors and level in _guilty(store, store.factors[name]):
            settings = {level: {factor.id: factor.levels.removal, name: level}}
    times = store.runs if factor.levels.race else 1
    levels = [None, *(level for level in settings for _ in range(times))] if settings else []
    reference = {factor.id: factor.levels.removal}
    runs = [{**store.base, **(reference if level is None else settings[level])} for level in levels]
    outcomes = yield from store.run(runs, "removal")
    store.removals[factor.id] = list(zip(levels, outcomes, strict=True))


def _guilty(store: EvidenceStore, factor: Factor) -> list[str]:
    return [level for level in factor.levels.varied if finding(store, factor, level).level.diverged]
