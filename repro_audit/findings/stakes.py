"""Whether a training had anything at stake: where nothing changes, or all is NaN, any two runs agree. Pure."""

from __future__ import annotations

from math import isnan

import numpy as np

from repro_audit.storage.facts import Facts, of_rank
from repro_audit.storage.trace import Phase, Role, Trace

_PARAMETER = "param."


def nothing_at_stake(facts: Facts, trace: Trace) -> str | None:
    """Why runs that agree prove nothing of this training, one sentence without its full stop; None where they do."""
    not_finite = _first_not_finite(facts)
    if not_finite is not None:
        loss = facts.losses[not_finite]
        name = "NaN" if isnan(loss) else "infinite"
        since = f"step {not_finite}" if not_finite else "the first step"
        return f"the loss is {name} from {since} on, which hides what changes it"
    if moved(trace) is False:
        because = _why_unmoved(facts)
        return facts.seen("no parameter changed") + (f": {because}" if because else "")
    if facts.gradients is False:
        return facts.seen("every gradient was zero")
    return None


def _first_not_finite(facts: Facts) -> int | None:
    """The step from which on no loss was finite to the end, where that is more than half of the steps."""
    told = [(step, finite) for step, finite in enumerate(facts.finite) if finite is not None]
    while told and not told[-1][1]:
        step, _ = told.pop()
        if not told or told[-1][1]:
            return step if 2 * step < len(facts.finite) else None
    return None


def _why_unmoved(facts: Facts) -> str:
    if facts.holds is False:
        return "the optimizer holds none of the model's parameters"
    if facts.gradients is False:
        return "every gradient was zero"
    if facts.holds and facts.gradients is None:
        return "no gradient reached what the optimizer holds"
    return "the learning rate was 0" if facts.rate is False else ""


def moved(trace: Trace) -> bool | None:
    """Whether any parameter was other than before after some step; None where none was seen twice."""
    named = [
        number
        for number, text in enumerate(trace.strings)
        if of_rank(text)[1].startswith(_PARAMETER)
    ]
    wanted = (trace.role == Role.OUTCOME) & np.isin(trace.name, named)
    seen: dict[tuple[str, int], bytes] = {}
    twice = False
    for index in np.flatnonzero(wanted).tolist():
        row = trace.row(index)
        key = (row.name, row.occurrence)
        if key in seen:
            twice = True
            if seen[key] != row.digest:
                return True
        elif row.phase in {Phase.INIT, Phase.OPTIMIZER}:
            seen[key] = row.digest
    return False if twice else None
