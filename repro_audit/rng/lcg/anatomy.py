"""All that `repro-audit rng lcg` shows of one generator, as a value: what it promises, does, and gives away."""

from __future__ import annotations

from dataclasses import dataclass

from repro_audit.errors import InternalError
from repro_audit.rng.lcg import clock
from repro_audit.rng.lcg.clock import Remedy
from repro_audit.rng.lcg.generator import WALK_LIMIT, HullDobell, Lcg, Orbit, find_cycle
from repro_audit.rng.lcg.recovery import (
    KNOWN_MODULUS_NEEDS,
    UNKNOWN_MODULUS_NEEDS,
    Recovery,
    recover,
)

FIRST_OUTPUTS = 8
"""Outputs that are shown."""
CRACK_LIMIT = 64
"""Outputs that the search for an unknown modulus may see."""
_LOW_BITS = (1, 2, 3, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class LowBits:
    """The lowest bits of the outputs where M is a power of two: a generator of their own."""

    bits: int
    period: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What the first `outputs` outputs say where M is not known."""

    outputs: int
    recovery: Recovery


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """One LCG from one seed."""

    lcg: Lcg
    seed: int
    outputs: tuple[int, ...]
    hull_dobell: HullDobell
    orbit: Orbit
    walked: bool
    """Cycle finding walked the whole orbit, and agreed; where False, it is too long for that, or not known."""
    low_bits: tuple[LowBits, ...]
    """Empty where M is no power of two above 2."""
    spectral: int | None
    """The square of nu_2; None where the period is not full, and the test says nothing."""
    known_modulus: Recovery
    unknown_modulus: tuple[Attempt, ...]
    """With one output more each time, until M is found; the last one says how it ended."""
    at_start: Remedy
    while_running: Remedy


def dissect(lcg: Lcg, seed: int) -> Anatomy:
    """Everything of a generator that starts from `seed`.

    Raises:
        UsageError: `seed` is not in 0 <= seed < M.
    """
    outputs = lcg.outputs(seed, CRACK_LIMIT)
    hull_dobell, orbit = lcg.hull_dobell(), lcg.orbit(seed)
    return Anatomy(
        lcg=lcg,
        seed=seed,
        outputs=tuple(outputs[:FIRST_OUTPUTS]),
        hull_dobell=hull_dobell,
        orbit=orbit,
        walked=_walked(lcg, seed, orbit),
        low_bits=_low_bits(lcg, seed),
        spectral=lcg.spectral() if hull_dobell.full and lcg.modulus > 1 else None,
        known_modulus=recover(outputs[:KNOWN_MODULUS_NEEDS], lcg.modulus),
        unknown_modulus=_attempts(lcg, outputs),
        at_start=clock.reseeded_at_start(lcg),
        while_running=clock.perturbed_while_running(lcg, seed),
    )


def _walked(lcg: Lcg, seed: int, orbit: Orbit) -> bool:
    """Whether the orbit was short enough to walk; two ways to the same numbers must meet."""
    if orbit.period is None or orbit.tail is None:
        return False
    entry = lcg.after(seed, orbit.tail)
    agree = lcg.after(entry, orbit.period) == entry
    walked = orbit.at_most <= WALK_LIMIT // 4
    if walked:
        agree = find_cycle(lcg.step, seed, WALK_LIMIT) == (orbit.tail, orbit.period)
    if not agree:
        raise InternalError(
            f"period {orbit.period} from seed {seed} was not met again", where=str(lcg)
        )
    return walked


def _low_bits(lcg: Lcg, seed: int) -> tuple[LowBits, ...]:
    bits = lcg.modulus.bit_length() - 1
    if bits < 2 or lcg.modulus != 2**bits:  # noqa: PLR2004
        return ()
    shown = (*(count for count in _LOW_BITS if count < bits), bits)
    orbits = ((count, lcg.modulo(2**count).orbit(seed % 2**count)) for count in shown)
    return tuple(
        LowBits(bits=count, period=orbit.period)
        for count, orbit in orbits
        if orbit.period is not None
    )


def _attempts(lcg: Lcg, outputs: list[int]) -> tuple[Attempt, ...]:
    attempts = []
    for count in range(UNKNOWN_MODULUS_NEEDS, len(outputs) + 1):
        attempts.append(Attempt(outputs=count, recovery=recover(outputs[:count])))
        found = attempts[-1].recovery.lcg
        if found is not None and found.modulus == lcg.modulus:
            break
    return tuple(attempts)
