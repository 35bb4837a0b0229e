"""Two remedies against a generator that always starts alike, both of which take the clock, and what they cost.

The clocks are pretended, so that the demonstration is the same every time, which is more than the remedies allow.
"""

from __future__ import annotations

from dataclasses import dataclass

from repro_audit.rng.lcg.generator import Lcg
from repro_audit.rng.lcg.recovery import seeds_of

INSTANT = 1_700_000_000
"""2023-11-14 22:13:20 UTC, in seconds since 1970: the first pretended program starts then, the other a second later."""
DAY = 86_400
"""Seconds in a day, all of which the search tries."""
DRAWS = 8
"""Outputs that are compared."""
EVERY = 4
"""The second remedy takes the clock each time so many outputs are drawn."""
READINGS = (31_337, 31_996)
"""Microseconds on the clock of two runs as they come to the first reading."""
WINDOW = 100_000
"""Microseconds (a tenth of a second) within which the search for a reading looks."""
SHOWN = 3
"""Outputs that the search gets to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Two runs of the same program under a remedy, and the search for what its clock said."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    tried: int
    """Clock readings that were tried."""
    matching: int
    """How many of them yield the first run's outputs; 1 is the truth, found out."""
    match: int
    """The first one that does: seconds since 1970, or microseconds."""

    @property
    def equal(self) -> int:
        """Outputs that are the same in both runs."""
        return sum(a == b for a, b in zip(self.first, self.second, strict=True))


def reseeded_at_start(lcg: Lcg) -> Remedy:
    """Seed from the clock, in whole seconds, when the program starts; all seconds of the day are tried."""
    first = lcg.outputs(INSTANT % lcg.modulus, DRAWS)
    second = lcg.outputs((INSTANT + 1) % lcg.modulus, DRAWS)
    midnight = INSTANT - INSTANT % DAY
    seconds = seeds_of(lcg, first[:SHOWN], range(midnight, midnight + DAY))
    return Remedy(
        first=tuple(first),
        second=tuple(second),
        tried=DAY,
        matching=len(seconds),
        match=seconds[0],
    )


def perturbed_while_running(lcg: Lcg, seed: int) -> Remedy:
    """Add the clock's microseconds to the state after every 4 outputs; a tenth of a second of readings is tried."""
    first, second = (_perturbed(lcg, seed, reading) for reading in READINGS)
    before = first[EVERY - 1]
    states = seeds_of(lcg, first[EVERY : EVERY + SHOWN], range(before, before + WINDOW))
    return Remedy(
        first=first,
        second=second,
        tried=WINDOW,
        matching=len(states),
        match=states[0] - before,
    )


def _perturbed(lcg: Lcg, seed: int, reading: int) -> tuple[int, ...]:
    outputs = lcg.outputs(seed, EVERY)
    return *outputs, *lcg.outputs((outputs[-1] + reading) % lcg.modulus, DRAWS - EVERY)
