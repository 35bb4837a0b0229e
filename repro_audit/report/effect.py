"""How large a finding is, and the order of findings that follows: the same in every format."""

from __future__ import annotations

import math
from collections.abc import Sequence

from repro_audit.report import text
from repro_audit.report.model import PROMISES, LossCurve, SourceResult, SourceStatus, broken_promise
from repro_audit.source import Scope

_ORDER = (*PROMISES, Scope.NONE)


def findings(sources: Sequence[SourceResult]) -> list[SourceResult]:
    """What broke, the narrowest promise first, since that is the one to fix first; of one promise, the largest effect.

    The effect is the largest difference of both runs' losses. Where the losses are the same, or none was seen, it is
    the largest difference in the first tensor that differs, which counts less than any difference of a loss.
    """
    return sorted(
        (source for source in sources if source.status is SourceStatus.BROKE),
        key=lambda source: (
            _ORDER.index(broken_promise(source, sources)),
            -_of_losses(source),
            -_of_values(source),
        ),
    )


def gaps(a: LossCurve, b: LossCurve) -> list[float]:
    """By how much two losses differ, step by step; NaN or infinite where one of them is."""
    pairs = zip(a.values, b.values)  # noqa: B905  # `strict` would refuse a run that ended early
    return [0.0 if text.same_number(x, y) else abs(x - y) for x, y in pairs]


def _of_losses(source: SourceResult) -> float:
    return max(map(comparable, gaps(*source.losses)), default=0.0) if source.losses else 0.0


def _of_values(source: SourceResult) -> float:
    size = source.divergence.size if source.divergence is not None else None
    return comparable(size.max_abs) if size is not None else 0.0


def comparable(difference: float) -> float:
    """A difference from or to NaN is as large as any."""
    return math.inf if math.isnan(difference) else difference
