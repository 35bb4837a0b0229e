"""How large a divergence is beside the seed's own effect, and what a fix costs; no verdict hangs on either.

Both take further runs, which are made only where something broke.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from repro_audit.experiment import Judgement
from repro_audit.source import Source
from repro_audit.trial.request import Watch

if TYPE_CHECKING:
    from repro_audit.trial.oracle import DivergedPair, TrialOracle

RUNS = 2
"""With a fix, and as many without it."""


def seeds(
    oracle: TrialOracle, sources: Mapping[str, Source], judgements: Mapping[str, Judgement]
) -> list[Sequence[float]]:
    """The losses of runs with four seeds; none where the seed was not tried, or changes nothing."""
    for name, judgement in judgements.items():
        more = sources[name].more_seeds
        if more is None or judgement.pair is None:
            continue
        pair = [oracle.trials[trial] for trial in judgement.pair]
        further = [({name: level}, Watch()) for level in more(pair[1].setting[name])]
        trials = [*pair, *oracle.try_settings(further)]
        return [trial.facts.losses for trial in trials if trial.ended.status == "ok"]
    return []


def share(diverging: DivergedPair, of_seeds: Sequence[Sequence[float]]) -> str | None:
    """The difference of a pair's last losses, as a share of the spread between seeds."""
    pair = (diverging.reference.facts.losses, diverging.diverged.facts.losses)
    return share_of_spread(pair, of_seeds)


def share_of_spread(
    pair: tuple[Sequence[float], Sequence[float]], of_seeds: Sequence[Sequence[float]]
) -> str | None:
    """As `share`, from the losses themselves; None where there are fewer than three seeds, or no finite spread."""
    last = min(map(len, (*pair, *of_seeds)), default=0) - 1
    if last < 0 or len(of_seeds) < 3:  # noqa: PLR2004 - two seeds show no spread, only a difference
        return None
    ends = [losses[last] for losses in of_seeds]
    spread, distance = max(ends) - min(ends), abs(pair[1][last] - pair[0][last])
    if not (math.isfinite(spread) and math.isfinite(distance)) or spread == 0:
        return None
    beside = f"the spread between {len(of_seeds)} seeds ({spread:.2g})"
    if distance == 0:
        return f"the last loss is equal; {beside} is what another seed does to it"
    return f"the last loss differs by {_percent(distance / spread)} of {beside}"


def _percent(ratio: float) -> str:
    """Two digits that count, and never 0 for what is not."""
    if ratio >= 0.1:  # noqa: PLR2004
        return f"{100 * ratio:,.0f}%"
    return f"{100 * ratio:.2g}%" if ratio >= 1e-6 else "less than 0.0001%"  # noqa: PLR2004


def costs(oracle: TrialOracle, broke: Iterable[Source]) -> dict[str, str]:
    """What the fix of each source that broke costs, for those where it costs speed."""
    wanted = [(source, source.fix_cost) for source in broke if source.fix_cost is not None]
    settings = [
        ({source.id: level} if level != source.pinned else {}, Watch())
        for source, how in wanted
        for level in (how.fixed, how.without) * RUNS
    ]
    with oracle.runner.one_by_one():
        trials = iter(oracle.try_settings(settings))
    found = {}
    for source, how in wanted:
        seconds = [next(trials).facts.step_seconds for _ in range(2 * RUNS)]
        line = cost(how.words, seconds[::2], seconds[1::2])
        if line is not None:
            found[source.id] = line
    return found


def cost(words: str, fixed: Sequence[float], without: Sequence[float]) -> str | None:
    """A fix's cost as the ratio of a step's median times; None where a run was too short to tell."""
    if not all((*fixed, *without)):
        return None
    ratio = median(fixed) / median(without)
    runs = f"medians of {len(fixed)} and {len(without)} short runs"
    shown = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"  # noqa: PLR2004
    return f"{words} {shown} times as long for a step ({runs})"
