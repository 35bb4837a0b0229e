"""Conviction: nobody is blamed before repeats, pinned runs and removals have had their say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_audit.experiment.bench import Bench, in_step
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
from repro_audit.experiment.grouping import reduce
from repro_audit.experiment.judging import finding, spared

if TYPE_CHECKING:
    from collections.abc import Iterable

SCEPTICAL = 3
"""Times as many runs as usual are made of a race that seems to be none."""


def pin(bench: Bench, count: int) -> Plan[Result | None]:
    """See to it that the pinned setting was repeated `count` times; a result means: blame nobody.

    Either the fast path is not faithful, or the program differs from run to run with everything pinned.
    """
    missing = max(1, count) - len(bench.pinned)
    outcomes = yield from bench.run([{}] * missing, "pinned")
    bench.pinned += outcomes
    odd = [outcome for outcome in outcomes if not bench.equal(outcome)]
    if not odd:
        return None
    if not bench.fresh:
        (again,) = yield [Run(setting={}, purpose="floor", fresh=True)]
        if bench.equal(again):
            return Result(judgements=_untested(bench), noise=_trained(bench, odd), faithful=False)
        odd = [again, *odd]
    witness = next((outcome for outcome in odd if bench.diverged(outcome)), odd[0])
    return Result(
        judgements=_untested(bench),
        unexplained=(bench.floor.trial, witness.trial),
        noise=_trained(bench, [*bench.pinned, *odd]),
    )


def _trained(bench: Bench, outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    trained = [outcome.trial for outcome in outcomes if outcome.status == "ok"]
    return tuple(dict.fromkeys((bench.floor.trial, *trained)))


def by_layout(bench: Bench, noise: Result) -> Plan[Result]:
    """Where pinned runs differ, or forked ones from fresh ones, blame the factor that nothing pins if it explains that.

    Runs forked from one process share its layout, so they agree at each of its levels, and not from one to another.
    """
    for factor in bench.factors.values():
        if factor.levels.unpinnable is None:
            continue
        times = bench.runs + 1
        moved = {factor.id: factor.levels.unpinnable}
        outcomes = yield from bench.run([{}] * times + [moved] * times, "pinned")
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


def _untested(bench: Bench) -> dict[str, Judgement]:
    note = "two runs with everything pinned differ, so a difference proves nothing of this source"
    return {name: Judgement(id=name, status="untested", note=note) for name in bench.factors}


def try_alone(bench: Bench, factor: Factor) -> Plan[None]:
    """Run each level of a factor on its own, a race several times; what was run already counts."""
    missing = [
        {factor.id: level}
        for level in factor.levels.varied
        for _ in range(_times(bench, factor, level) - len(bench.alone.get((factor.id, level), ())))
    ]
    yield from bench.observe(missing, "race" if factor.levels.race else "single")


def _times(bench: Bench, factor: Factor, level: str) -> int:
    return bench.runs if factor.levels.races_at(level) else 1


def convict_all(bench: Bench) -> Plan[Result | None]:
    """Try every suspect, beside the pinned runs; a result means that nobody can be blamed."""
    if not bench.troubled():
        return None
    done: set[str] = set()
    pinned = bench.runs - 1
    while True:
        suspects = [factor for factor in bench.suspects() if factor.id not in done]
        trials = [_convict(bench, factor) for factor in suspects]
        noise, *_ = yield from in_step([pin(bench, pinned), *trials])
        if noise is not None:
            return noise
        done.update(factor.id for factor in suspects)
        if not suspects:
            break
    # What differs only at times is held against as many pinned runs.
    return (yield from pin(bench, max(pinned, _longest_unsteady(bench))))


def _longest_unsteady(bench: Bench) -> int:
    flaky = bench.runs if bench.flakes else 0
    totals = (bench.tally(level)[1] for level in bench.alone if bench.unsteady(level))
    return max(flaky, *totals, 0)


def _convict(bench: Bench, factor: Factor) -> Plan[None]:
    """Run a suspect alone at every level, in parts where one diverged, and again where it diverged."""
    yield from try_alone(bench, factor)
    guilty = [level for level in factor.levels.varied if _seen(bench, factor, level)]
    parts = [part for level in guilty for part in factor.levels.parts.get(level, ())]
    yield from bench.observe([{factor.id: part} for part in parts])
    if guilty and not factor.levels.races_at(guilty[0]):
        first = guilty.pop(0)
        yield from _repeat(bench, factor, first)
        if _seen(bench, factor, first) and not bench.unsteady((factor.id, first)):
            return  # one conviction is enough, where nothing speaks for chance
    yield from in_step([_repeat(bench, factor, level) for level in guilty])


def _seen(bench: Bench, factor: Factor, level: str) -> bool:
    return any(map(bench.diverged, bench.alone.get((factor.id, level), ())))


def _repeat(bench: Bench, factor: Factor, level: str) -> Plan[None]:
    """Repeat a divergence with everything else pinned, the base too; find out if it needs the base."""
    single = {factor.id: level}
    evidence = bench.alone[factor.id, level]
    if factor.levels.races_at(level):
        yield from bench.observe([single] * bench.runs, "race", based=False)
        if not factor.levels.forced and not bench.unsteady((factor.id, level)):
            # Another result than the pinned one, and always the same: no race, unless it shows rarely.
            yield from bench.observe([single] * (SCEPTICAL * bench.runs), "race", based=False)
        return
    (again,) = yield from bench.observe([single], "repeat", based=False)
    if bench.base and bench.equal(again):
        smallest = yield from reduce(bench, {**bench.base, **single})
        if smallest not in (None, single):
            evidence[:] = [outcome for outcome in evidence if bench.equal(outcome)]
            return
    if bench.unsteady((factor.id, level)):
        yield from bench.observe([single] * bench.runs, "repeat", based=False)


def remove_all(bench: Bench) -> Plan[None]:
    """Take each suspect that can be removed out of the pair that diverged, and run it again."""
    yield from in_step([_remove(bench, factor) for factor in bench.factors.values()])


def _remove(bench: Bench, factor: Factor) -> Plan[None]:
    if factor.levels.removal is None:
        return
    settings: dict[str, Setting] = {}
    if factor.levels.carrier is None:
        settings = {
            level: {factor.id: factor.levels.removed(level)} for level in _guilty(bench, factor)
        }
    else:
        name, level = factor.levels.carrier
        if name in bench.factors and level in _guilty(bench, bench.factors[name]):
            settings = {level: {factor.id: factor.levels.removal, name: level}}
    times = bench.runs if factor.levels.race else 1
    levels = [None, *(level for level in settings for _ in range(times))] if settings else []
    reference = {factor.id: factor.levels.removal}
    runs = [{**bench.base, **(reference if level is None else settings[level])} for level in levels]
    outcomes = yield from bench.run(runs, "removal")
    bench.removals[factor.id] = list(zip(levels, outcomes, strict=True))


def _guilty(bench: Bench, factor: Factor) -> list[str]:
    return [level for level in factor.levels.varied if finding(bench, factor, level).level.diverged]
