"""How far two runs may be apart and still count as equal, and a trace with what lies within that made equal. Pure.

A difference is allowed where any of the bounds holds: so many representable steps (`ulp`), a share of the larger number
(`rel`), a distance (`abs`). Forms, orders, and whatever is no floating point number must be equal as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from repro_audit.analysis.compare import Mismatch
from repro_audit.errors import UsageError, nearest
from repro_audit.storage.facts import Key
from repro_audit.storage.number_formats import format_of
from repro_audit.storage.trace import Phase, Trace
from repro_audit.storage.values import Value

GROUPS = {
    "data": (Phase.DATA,),
    "outputs": (Phase.FORWARD,),
    "gradients": (Phase.BACKWARD,),
    "parameters": (Phase.INIT, Phase.OPTIMIZER),
}
"""What a tolerance may be for, and the phases whose outcomes it is about."""
BOUNDS = ("ulp", "rel", "abs")
_FORM = "give --tolerance ulp=4, --tolerance rel=1e-6,abs=1e-8, or for a part: --tolerance gradients:rel=1e-5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """The bounds by group; empty where all must be equal."""

    bounds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.bounds)

    def of(self, phase: int) -> Mapping[str, float]:
        """The bounds for what is observed in a phase."""
        group = next(name for name, phases in GROUPS.items() if phase in phases)
        return self.bounds.get(group, {})

    def __str__(self) -> str:
        """As it is given: `gradients:rel=1e-05`."""
        groups = [
            (name, ",".join(f"{bound}={value:g}" for bound, value in bounds.items()))
            for name, bounds in self.bounds.items()
        ]
        said = {bounds for _, bounds in groups}
        if len(groups) == len(GROUPS) and len(said) == 1:
            return said.pop()
        return " ".join(f"{name}:{bounds}" for name, bounds in groups)


def parse(given: Sequence[str]) -> Tolerance:
    """Read what `--tolerance` was given, each time it was; later ones of a group replace earlier ones.

    Raises:
        UsageError: it names no bound, no group, or no number.
    """
    found: dict[str, Mapping[str, float]] = {}
    for text in given:
        group, colon, bounds = text.rpartition(":")
        if colon and group not in GROUPS:
            raise UsageError(
                f"there is no tolerance for {group!r}",
                where="--tolerance",
                next_step=nearest(group, GROUPS, "part"),
            )
        read = dict(_bound(each, text) for each in bounds.split(","))
        found |= dict.fromkeys([group] if colon else GROUPS, read)
    return Tolerance(bounds=found)


def _bound(text: str, whole: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if name not in BOUNDS or not 0 <= value < math.inf:
        raise UsageError(f"{whole!r} is no tolerance", where="--tolerance", next_step=_FORM)
    return name, value


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """What was found to differ within a tolerance."""

    outcomes: int = 0
    """How many."""
    key: Key | None = None
    """Where the largest difference is."""
    max_abs: float = 0.0
    max_ulp: int = 0
    unknown: int = 0
    """Outcomes of which a sample alone was kept: what is not in it was not compared."""


def forgive(
    theirs: Trace,
    differing: Iterable[tuple[int, Mismatch, bytes]],
    ours: Mapping[Key, Value],
    others: Mapping[Key, Value],
    tolerance: Tolerance,
) -> tuple[Trace, Within]:
    """The second trace, in which what is within the tolerance has the digests of the first.

    Args:
        theirs: the second trace.
        differing: as `compare.unequal_values` tells it.
        ours: the values of the first run.
        others: those of the second.
        tolerance: what is allowed.
    """
    changed = theirs.digest.copy()
    within = Within()
    for row, mismatch, digest in differing:
        key = (mismatch.step, int(mismatch.phase), mismatch.name, mismatch.occurrence)
        bounds = tolerance.of(mismatch.phase)
        a, b = ours.get(key), others.get(key)
        if not bounds or a is None or b is None:
            continue
        apart = _apart(a, b, bounds)
        if apart is None:
            continue
        changed[row] = np.void(digest)
        larger = apart[0] >= within.max_abs
        within = Within(
            outcomes=within.outcomes + 1,
            key=key if larger else within.key,
            max_abs=max(apart[0], within.max_abs),
            max_ulp=max(apart[1], within.max_ulp),
            unknown=within.unknown + bool(a.of),
        )
    return replace(theirs, digest=changed), within


def _apart(a: Value, b: Value, bounds: Mapping[str, float]) -> tuple[float, int] | None:
    """The largest distance and the most steps between two values; None where some element is beyond all bounds."""
    if a.dtype != b.dtype or a.shape != b.shape or a.of != b.of or a.data.nbytes != b.data.nbytes:
        return None
    fmt = format_of(a.dtype, a.data.nbytes // a.numel if a.numel else 1)
    if fmt.decode is None:
        return (0.0, 0) if np.array_equal(a.data, b.data) else None
    ours = a.data.view(fmt.code).reshape(a.numel, fmt.components)
    theirs = b.data.view(fmt.code).reshape(b.numel, fmt.components)
    distance = fmt.distance(ours, theirs)
    fits, finite = distance == 0, np.isfinite(distance)
    if "abs" in bounds:
        fits |= distance <= bounds["abs"]
    if "rel" in bounds:
        with np.errstate(invalid="ignore"):
            sizes = np.maximum(np.abs(fmt.decode(ours)), np.abs(fmt.decode(theirs))).max(axis=1)
            fits |= finite & (distance <= bounds["rel"] * sizes)
    for row in np.flatnonzero(~fits) if "ulp" in bounds else ():
        steps = fmt.ulps(ours[row : row + 1], theirs[row : row + 1])
        fits[row] = steps is not None and finite[row] and steps <= bounds["ulp"]
    if not fits.all():
        return None
    return float(distance.max(initial=0.0)), fmt.ulps(ours, theirs) or 0
