"""Judgement: what follows from the evidence in the store. Pure; nothing is run here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from repro_audit.experiment.design import (
    Confidence,
    Conjunction,
    Factor,
    Judgement,
    LevelOutcome,
    Outcome,
    Status,
)

if TYPE_CHECKING:
    from repro_audit.experiment.evidence_store import EvidenceStore

STEADY_RELEASED = "the pinned level computes other bits, but released runs agree with each other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the evidence says about one level of a factor."""

    level: LevelOutcome
    confidence: Confidence | None = None
    repeat: str | None = None
    race: tuple[int, int] | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What became of a divergence when the suspect was taken out."""

    pair: tuple[str, str]
    agree: bool | None
    """None where one of the trials did not train."""


def conclude(store: EvidenceStore) -> dict[str, Judgement]:
    """Judge every factor, then let the more specific ones take the blame of their carriers."""
    judgements = {name: _own(store, factor) for name, factor in store.factors.items()}
    for factor in store.factors.values():
        if factor.levels.judged_by is None:
            judgements[factor.id] = _with_removal(store, judgements[factor.id])
    for factor in store.factors.values():
        if factor.levels.judged_by is not None and factor.levels.judged_by[0] in judgements:
            name, level = factor.levels.judged_by
            carried = _carried(store, judgements[factor.id], store.factors[name], level)
            judgements[factor.id] = carried
            if carried.undone == "removal":
                judgements[name] = _relieved(judgements[name], level, carried.id)
    moving = unpinned(store)
    return judgements if moving is None else spared(judgements, moving)


def unpinned(store: EvidenceStore) -> Factor | None:
    """Return a factor that was seen to move the result at a level that nothing pins."""
    for factor in store.factors.values():
        level = factor.levels.unpinnable
        if level is not None and finding(store, factor, level).level.diverged:
            return factor
    return None


def spared(judgements: Mapping[str, Judgement], moving: Factor) -> dict[str, Judgement]:
    """Take back every blame but the one of a factor that any change of anything may move."""
    note = f"{moving.id} can not be pinned here, so a difference proves nothing of this source"
    return {
        name: judgement
        if name == moving.id or judgement.status not in ("broke", "untested")
        else Judgement(id=name, status="untested", note=judgement.note or note)
        for name, judgement in judgements.items()
    }


def finding(store: EvidenceStore, factor: Factor, level: str) -> Finding:
    """Judge one level: by its own runs where there are any, else by a group that held."""
    evidence = store.alone.get((factor.id, level), [])
    ran = [outcome for outcome in evidence if outcome.status == "ok"]
    diverged = [outcome for outcome in ran if store.diverged(outcome)]
    steady = (
        factor.levels.race and not factor.levels.forced and not store.unsteady((factor.id, level))
    )
    if diverged and steady:
        return Finding(
            level=_level(level, diverged=False, outcome=ran[0]),
            race=(0, len(ran)),
            note=STEADY_RELEASED,
        )
    if diverged:
        return _diverged(store, factor, level, ran)
    if len(ran) < len(evidence):
        failed = next(outcome for outcome in evidence if outcome.status != "ok")
        return Finding(level=_level(level, diverged=None, outcome=failed))
    held = store.held.get((factor.id, level), [])
    if not held:
        untested = LevelOutcome(level=level, diverged=None, trial=None, status="untested")
        return Finding(level=untested)
    return Finding(
        level=LevelOutcome(level=level, diverged=False, trial=held[0], status="ok"),
        race=(0, len(held)) if factor.levels.race else None,
    )


def _diverged(store: EvidenceStore, factor: Factor, level: str, ran: list[Outcome]) -> Finding:
    """Weigh a divergence: proven takes a repeat, and pinned runs that agree."""
    diverged = [outcome for outcome in ran if store.diverged(outcome)]
    repeated = len(diverged) > 1 and (factor.levels.race or len(diverged) == len(ran))
    # On top of a base, the later runs are the ones with everything else pinned.
    ordered = diverged[::-1] if store.base else diverged
    return Finding(
        level=_level(level, diverged=True, outcome=ordered[0]),
        confidence="proven" if repeated and store.pinned else "suspected",
        repeat=ordered[1].trial if len(ordered) > 1 else None,
        race=store.tally((factor.id, level))
        if factor.levels.forced or store.unsteady((factor.id, level))
        else None,
    )


def _level(level: str, *, diverged: bool | None, outcome: Outcome) -> LevelOutcome:
    return LevelOutcome(level=level, diverged=diverged, trial=outcome.trial, status=outcome.status)


def _own(store: EvidenceStore, factor: Factor) -> Judgement:
    """Judge a factor by its own levels, alone and together with others."""
    findings = [finding(store, factor, level) for level in factor.levels.varied]
    levels = tuple(found.level for found in findings)
    together = _together(store, factor)
    judgement = Judgement(
        id=factor.id,
        status="held",
        levels=levels,
        race=_race(findings),
        note=next((found.note for found in findings if found.note), None),
    )
    if any(level.diverged for level in levels):
        parts = [
            finding(store, factor, part).level
            for level in levels
            if level.diverged
            for part in factor.levels.parts.get(level.level, ())
        ]
        judgement = replace(judgement, levels=(*levels, *parts))
        return _broke_alone(store, factor, judgement, findings)
    if together is not None and all(map(store.diverged, together.failures)):
        return _broke_together(store, judgement, together)
    return _unsuspicious(store, factor, judgement, together)


def _unsuspicious(
    store: EvidenceStore, factor: Factor, judgement: Judgement, together: Conjunction | None
) -> Judgement:
    """Judge a factor that diverged nowhere: held only if all of its levels ran."""
    levels = judgement.levels
    if any(level.status not in ("ok", "untested") for level in levels):
        return replace(judgement, status="error")
    if not levels or any(level.status == "untested" for level in levels):
        return replace(judgement, status="untested")
    if together is not None:
        names = " and ".join(together.setting)
        return replace(judgement, note=f"runs failed with {names} varied together")
    if factor.levels.race and any(factor.id in group for group, _ in store.flakes):
        return replace(judgement, note="a run in company differed once, and none since")
    return judgement


def _together(store: EvidenceStore, factor: Factor) -> Conjunction | None:
    """Return a conjunction the factor is part of, one that diverged before one that crashed."""
    mine = [found for found in store.conjunctions if factor.id in found.setting]
    mine.sort(key=lambda found: not all(map(store.diverged, found.failures)))
    return mine[0] if mine else None


def _race(findings: list[Finding]) -> tuple[int, int] | None:
    """Add up the released runs of all levels."""
    races = [found.race for found in findings if found.race]
    if not races:
        return None
    return sum(odd for odd, _ in races), sum(total for _, total in races)


def _broke_alone(
    store: EvidenceStore, factor: Factor, judgement: Judgement, findings: list[Finding]
) -> Judgement:
    guilty = [found for found in findings if found.level.diverged]
    best = next((found for found in guilty if found.confidence == "proven"), guilty[0])
    judgement = replace(judgement, status="broke", pair=_pair(store, best.level.trial))
    if factor.yardstick:
        return judgement
    return replace(
        judgement,
        confidence=best.confidence,
        repeat=best.repeat,
        undone="pin" if store.pinned else None,
    )


def _broke_together(store: EvidenceStore, judgement: Judgement, together: Conjunction) -> Judgement:
    first, *others = together.failures
    alike = len({failure.digest for failure in together.failures}) == 1
    return replace(
        judgement,
        status="broke",
        confidence="proven" if others and alike and store.pinned else "suspected",
        pair=_pair(store, first.trial),
        repeat=others[0].trial if others else None,
        undone="pin" if store.pinned else None,
        together=together.setting,
    )


def _pair(store: EvidenceStore, trial: str | None) -> tuple[str, str] | None:
    return None if trial is None else (store.floor.trial, trial)


def _removal(store: EvidenceStore, name: str, level: str) -> Removal | None:
    """Return what the trials with the suspect taken out showed, for one of its levels; None without."""
    runs = store.removals.get(name)
    if not runs:
        return None
    outcomes = [outcome for _, outcome in runs]
    other = next(outcome for at, outcome in runs if at == level)
    trained = all(outcome.status == "ok" for outcome in outcomes)
    agree = len({outcome.digest for outcome in outcomes}) == 1
    return Removal(pair=(outcomes[0].trial, other.trial), agree=agree if trained else None)


def _with_removal(store: EvidenceStore, judgement: Judgement) -> Judgement:
    """Strengthen a conviction by the pair of trials without the suspect."""
    if judgement.confidence is None or judgement.together is not None or judgement.pair is None:
        return judgement
    trial = judgement.pair[1]
    level = next(level.level for level in judgement.levels if level.trial == trial)
    removal = _removal(store, judgement.id, level)
    if removal is None:
        return judgement
    undone = "removal" if removal.agree else judgement.undone
    return replace(judgement, removal_pair=removal.pair, undone=undone)


def _carried(store: EvidenceStore, own: Judgement, carrier: Factor, name: str) -> Judgement:
    """Judge a factor by a level of its carrier as well."""
    found = finding(store, carrier, name)
    if found.level.status == "untested":
        return own
    removal = _removal(store, own.id, name)
    if found.level.diverged and removal is not None:
        return _weaker(own, _removed(store, own, carrier, found, removal))
    if found.level.diverged:
        return _weaker(own, replace(own, note=f"{carrier.id} diverged, and nothing can be removed"))
    status: Status = "error" if found.level.diverged is None else "held"
    return _weaker(own, replace(own, status=status, levels=(*own.levels, found.level)))


def _removed(
    store: EvidenceStore, own: Judgement, carrier: Factor, found: Finding, removal: Removal
) -> Judgement:
    """Judge a factor by what became of its carrier's divergence when it was taken out."""
    judgement = replace(own, levels=(*own.levels, found.level), removal_pair=removal.pair)
    if removal.agree:
        return replace(
            judgement,
            status="broke",
            confidence=found.confidence,
            pair=_pair(store, found.level.trial),
            repeat=found.repeat,
            undone="removal",
        )
    if removal.agree is None:
        note = f"the runs without it, meant to explain {carrier.id}, did not train"
        return replace(judgement, status="error", note=note)
    innocent = replace(found.level, diverged=False, trial=removal.pair[1])
    note = f"{carrier.id} still diverges with it taken out"
    return replace(judgement, status="held", levels=(*own.levels, innocent), note=note)


def _weaker(own: Judgement, carried: Judgement) -> Judgement:
    """Let the carrier's run decide only where the factor's own levels showed nothing worse."""
    if carried.status == "broke" or own.status not in ("broke", "error"):
        return carried
    return replace(own, levels=carried.levels, removal_pair=carried.removal_pair)


def _relieved(carrier: Judgement, level: str, blamed: str) -> Judgement:
    """Take the blame off a carrier that diverged at no other level."""
    if carrier.status != "broke" or any(
        other.diverged for other in carrier.levels if other.level != level
    ):
        return carrier
    return replace(
        carrier,
        status="held",
        confidence=None,
        pair=None,
        repeat=None,
        undone=None,
        blamed=blamed,
    )
