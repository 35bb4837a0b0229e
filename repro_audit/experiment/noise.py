"""Amid noise: pinned runs differ, and the factors are judged by what those runs have in common.

What several pinned runs agree on, noise and all, is no less exact than a whole run is elsewhere, so the same experiment
is made over again with that alone in view. It may agree by luck, so here a factor is blamed only where each of many
runs differs and as many pinned ones do not, and never for more than a suspicion. Nothing is cleared: what lies behind
the noise was not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from repro_audit.experiment.design import Factor, Judgement, Plan, Result

if TYPE_CHECKING:
    from repro_audit.experiment.evidence_store import EvidenceStore

MOST_VIEWS = 3
"""As often the view is narrowed, where what pinned runs had in common turns out to be luck."""
_AT_TIMES = "it differs at times, as runs with everything pinned do"
SURE = 4
"""Times as many runs as usual must differ, and as many pinned ones agree."""


def confirm(
    store: EvidenceStore, judgements: Mapping[str, Judgement]
) -> Plan[dict[str, Judgement] | None]:
    """Doubt every blame; None where pinned runs differ even in what is in view."""
    blamed = {
        name: level
        for name, judgement in judgements.items()
        if judgement.status == "broke" and not store.factors[name].yardstick
        for level in [_guilty_level(judgement)]
    }
    times = SURE * store.runs
    single = [{name: level} for name, level in blamed.items() if level is not None]
    if not single:
        return dict(judgements)
    pinned = yield from store.run([{}] * times, "pinned")
    store.pinned += pinned
    if not all(map(store.equal, pinned)):
        return None
    outcomes = yield from store.run(single * times, "repeat")
    firm = {
        name
        for place, (name,) in enumerate(single)
        if all(map(store.diverged, outcomes[place :: len(single)]))
    }
    return {
        name: replace(judgement, confidence="suspected", undone=None)
        if name in firm
        else Judgement(id=name, status="untested", note=_AT_TIMES)
        if name in blamed
        else judgement
        for name, judgement in judgements.items()
    }


def _guilty_level(judgement: Judgement) -> str | None:
    """The level whose run the judgement shows; None for several factors together."""
    if judgement.together is not None or judgement.pair is None:
        return None
    trial = judgement.pair[1]
    return next((level.level for level in judgement.levels if level.trial == trial), None)


def amid(
    noise: Result, seen: Mapping[str, Judgement] | None, extent: str, causes: Iterable[Factor]
) -> Result:
    """What follows where pinned runs differ: the factors that are known to be at it, and the others as far as seen.

    Args:
        noise: what the experiment said, with everything in view.
        seen: the judgements by what pinned runs have in common; None where that told nothing.
        extent: how much that is, in words.
        causes: the factors whose levels were not in force in the runs that differ.
    """
    suspected = {factor.id for factor in causes}
    judgements = {}
    for name, judgement in noise.judgements.items():
        mine = seen.get(name) if seen is not None else None
        if judgement.status == "broke":
            judgements[name] = judgement
        elif name in suspected and noise.unexplained is not None:
            judgements[name] = Judgement(
                id=name,
                status="broke",
                confidence="suspected",
                pair=noise.unexplained,
                unpinned=True,
            )
        elif mine is not None and mine.status == "broke":
            judgements[name] = replace(mine, narrowed=True)
        elif judgement.status == "untested":
            note = f"no difference in what runs with everything pinned have in common ({extent})"
            known = mine is not None and mine.status == "held"
            judgements[name] = replace(judgement, note=note) if known else judgement
        else:
            judgements[name] = judgement
    unexplained = None if suspected else noise.unexplained
    return replace(noise, judgements=judgements, unexplained=unexplained)
