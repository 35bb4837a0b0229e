"""The linear congruential generator S' = (A*S + B) mod M: its outputs, whether its period is full, its true period.

Sources: Hull and Dobell, "Random Number Generators", SIAM Review 4(3), 1962; Knuth, "The Art of Computer Programming",
vol. 2, 3.2.1.2 (choice of multiplier, theorem A) and 3.3.4 (spectral test); Brent, "An Improved Monte Carlo
Factorization Algorithm", BIT 20, 1980 (cycle finding).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd, isqrt, lcm

from repro_audit.errors import UsageError
from repro_audit.rng.lcg import arithmetic
from repro_audit.rng.lcg.arithmetic import Factors, factorise, valuation

MODULUS_BITS = 1024
"""Moduli have at most so many bits; primes of more take too long to prove."""
WALK_LIMIT = 2**17
"""Steps that cycle finding may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HullDobell:
    """The three conditions under which an LCG visits every state: full period if and only if all hold."""

    gcd: int
    """gcd(B, M); condition 1 wants 1."""
    primes: tuple[tuple[int, bool], ...]
    """The prime factors of M that are known, and whether each divides A-1; condition 2 wants all to."""
    rest: int
    """What of M could not be factored, 1 where nothing; condition 2 is decided for it without its factors."""
    rest_divides: bool
    """Every prime factor of `rest` divides A-1; True where `rest` is 1."""
    four: bool | None
    """4 divides A-1; None where 4 does not divide M, and condition 3 asks for nothing."""

    @property
    def coprime(self) -> bool:
        """Condition 1: B and M share no factor."""
        return self.gcd == 1

    @property
    def primes_divide(self) -> bool:
        """Condition 2: every prime factor of M divides A-1."""
        return self.rest_divides and all(divides for _, divides in self.primes)

    @property
    def full(self) -> bool:
        """All three conditions hold: the period is M from every seed."""
        return self.coprime and self.primes_divide and self.four is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Orbit:
    """Where a seed leads: `tail` states that never come back, then `period` states over and over."""

    tail: int | None
    """States before the cycle; None where it isn't known."""
    period: int | None
    """States in the cycle; None where it isn't known."""
    at_least: int
    """Tail and period together are at least this."""
    at_most: int
    """Tail and period together are at most this."""
    by: str
    """What it was found by: `Hull-Dobell`, `algebra`, `cycle finding`; or `not known`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lcg:
    """The generator S' = (A*S + B) mod M. Its output is its whole state.

    Raises:
        UsageError: M is not in 1 <= M < 2**1024, or A or B is not in 0 <= ... < M, or one of them is no integer.
    """

    multiplier: int
    """A."""
    increment: int
    """B."""
    modulus: int
    """M."""

    def __post_init__(self) -> None:
        modulus = _integer("M", self.modulus)
        if not 1 <= modulus < 2**MODULUS_BITS:
            raise UsageError(
                f"M = {_short(modulus)} can not be a modulus",
                where="M",
                why=f"states are numbers from 0 to M-1, and M may have at most {MODULUS_BITS} bits",
                next_step=f"give 1 <= M < 2**{MODULUS_BITS}, for example 2**32",
            )
        self._check("A", self.multiplier)
        self._check("B", self.increment)
        # NumPy's integers would wrap around.
        for field in ("multiplier", "increment", "modulus"):
            object.__setattr__(self, field, operator.index(getattr(self, field)))

    def _check(self, name: str, value: int) -> None:
        number = _integer(name, value)
        if not 0 <= number < self.modulus:
            raise UsageError(
                f"{name} = {_short(number)} is out of range",
                where=name,
                why=f"everything is taken modulo M, so 0 <= {name} < M = {_short(self.modulus)}",
                next_step=f"{_short(number % self.modulus)} means the same: {name} mod M",
            )

    def step(self, state: int) -> int:
        """The state after `state`."""
        return (self.multiplier * state + self.increment) % self.modulus

    def outputs(self, seed: int, count: int) -> list[int]:
        """The first `count` outputs from a seed, which is not among them.

        Raises:
            UsageError: `seed` is not in 0 <= seed < M.
        """
        self._check("seed", seed)
        states = []
        for _ in range(count):
            seed = self.step(seed)
            states.append(seed)
        return states

    def after(self, seed: int, steps: int) -> int:
        """The state that `steps` steps from `seed` lead to, in about log2(steps) multiplications.

        Raises:
            UsageError: `seed` is not in 0 <= seed < M, or `steps` is negative.
        """
        self._check("seed", seed)
        if steps < 0:
            raise UsageError(
                f"steps = {steps} is negative", next_step="a generator goes forward only"
            )
        multiplier, increment = 1, 0
        double, add = self.multiplier, self.increment
        while steps:
            if steps & 1:
                multiplier = multiplier * double % self.modulus
                increment = (increment * double + add) % self.modulus
            double, add = double * double % self.modulus, (double * add + add) % self.modulus
            steps >>= 1
        return (multiplier * seed + increment) % self.modulus

    def modulo(self, divisor: int) -> Lcg:
        """The generator that the states modulo a divisor of M make; for M = 2**k, that of the low bits."""
        return Lcg(
            multiplier=self.multiplier % divisor,
            increment=self.increment % divisor,
            modulus=divisor,
        )

    def hull_dobell(self) -> HullDobell:
        """The conditions for a full period, each with its numbers. Right for every M, factored or not."""
        factors = factorise(self.modulus)
        less = self.multiplier - 1
        return HullDobell(
            gcd=gcd(self.increment, self.modulus),
            primes=tuple((prime, less % prime == 0) for prime, _ in factors.primes),
            rest=factors.rest,
            rest_divides=_radical_divides(factors.rest, less),
            four=None if self.modulus % 4 else less % 4 == 0,
        )

    def orbit(self, seed: int) -> Orbit:
        """Tail and period from a seed: exact where M, and p-1 for its primes p, can be factored; else bounds.

        Raises:
            UsageError: `seed` is not in 0 <= seed < M.
        """
        self._check("seed", seed)
        if self.hull_dobell().full:
            return _exact(0, self.modulus, "Hull-Dobell")
        parts = _orbits_of_prime_powers(self, seed, factorise(self.modulus))
        if None not in parts.values():
            exact = [part for part in parts.values() if part is not None]
            tail = max((tail for tail, _ in exact), default=0)
            return _exact(tail, lcm(*(period for _, period in exact)), "algebra")
        walked = find_cycle(self.step, seed, WALK_LIMIT)
        if walked is not None:
            return _exact(*walked, "cycle finding")
        return _bounds(parts)

    def spectral(self) -> int:
        """The square of nu_2 of the spectral test: pairs of outputs lie on parallel lines M/nu_2 apart.

        It judges generators of full period. Sources: Knuth, TAOCP vol. 2, 3.3.4.
        """
        first, second = (self.modulus, 0), (-self.multiplier, 1)
        while (
            True
        ):  # Gauss' reduction: the shorter vector is taken off the longer one as often as it helps
            if _square(first) < _square(second):
                first, second = second, first
            product = first[0] * second[0] + first[1] * second[1]
            times = (2 * product + _square(second)) // (2 * _square(second))
            if times == 0:
                return _square(second)
            reduced = (first[0] - times * second[0], first[1] - times * second[1])
            if _square(reduced) >= _square(first):
                return _square(second)
            first = reduced


def find_cycle(step: Callable[[int], int], seed: int, limit: int) -> tuple[int, int] | None:
    """Tail and period by Brent's cycle finding; None where they are not found within the limit.

    Args:
        step: the next state.
        seed: the first state.
        limit: steps that the search for the period may take; finding the tail then takes at most twice as many.
    """
    power = period = 1
    anchor, state = seed, step(seed)
    for _ in range(limit):
        if anchor == state:
            break
        if power == period:
            anchor, power, period = state, 2 * power, 0
        state = step(state)
        period += 1
    else:
        return None
    ahead = seed
    for _ in range(period):
        ahead = step(ahead)
    tail, behind = 0, seed
    while behind != ahead:
        behind, ahead, tail = step(behind), step(ahead), tail + 1
    return tail, period


def nu_limit(modulus: int) -> int:
    """The whole part of the largest nu_2 that any multiplier could have: sqrt(2/sqrt(3) * M)."""
    return isqrt(isqrt(4 * modulus**2 // 3))


def _orbits_of_prime_powers(
    lcg: Lcg, seed: int, factors: Factors
) -> dict[int, tuple[int, int] | None]:
    """Tail and period modulo each prime power of M, and modulo what is left of it; None where it isn't known.

    By the Chinese remainder theorem the states modulo M are the tuples of these: the tail is the longest one, the
    period the least common multiple.
    """
    orbits: dict[int, tuple[int, int] | None] = {}
    for prime, exponent in factors.primes:
        part = prime**exponent
        orbits[part] = _orbit_of_prime_power(lcg.modulo(part), seed % part, prime, exponent)
    if factors.rest > 1:
        orbits[factors.rest] = _orbit_of_rest(lcg.modulo(factors.rest), seed % factors.rest)
    return orbits


def _orbit_of_prime_power(lcg: Lcg, seed: int, prime: int, exponent: int) -> tuple[int, int] | None:
    """Tail and period modulo prime**exponent.

    With d = S1 - S0, the n-th state is S0 + d * (1 + A + ... + A**(n-1)), and two neighbours differ by d * A**n.
    """
    difference = (lcg.step(seed) - seed) % lcg.modulus
    if difference == 0:
        return 0, 1
    missing = exponent - valuation(difference, prime)
    multiplier = lcg.multiplier
    if multiplier % prime == 0:  # the differences vanish: a tail, then a fixed point
        each = valuation(multiplier, prime) if multiplier else exponent
        return -(-missing // each), 1
    if multiplier == 1:
        return 0, prime**missing
    # The sum is (A**n - 1) / (A - 1), and must hold `missing` factors.
    period = arithmetic.order(multiplier, prime, missing + valuation(multiplier - 1, prime))
    return None if period is None else (0, period)


def _orbit_of_rest(lcg: Lcg, seed: int) -> tuple[int, int] | None:
    """The same where the modulus is odd and not factored, in the cases that need no factors."""
    difference = (lcg.step(seed) - seed) % lcg.modulus
    if difference == 0:
        return 0, 1
    if _radical_divides(lcg.modulus, lcg.multiplier - 1):
        return 0, lcg.modulus // gcd(difference, lcg.modulus)
    return None


def _radical_divides(modulus: int, number: int) -> bool:
    """Every prime factor of `modulus` divides `number`."""
    return pow(number, modulus.bit_length(), modulus) == 0


def _bounds(parts: dict[int, tuple[int, int] | None]) -> Orbit:
    known = lcm(*(part[1] for part in parts.values() if part is not None))
    most = known
    for modulus, part in parts.items():
        if part is None:
            most *= modulus
    tail = max((part[0] for part in parts.values() if part is not None), default=0)
    return Orbit(
        tail=None,
        period=None,
        # Brent's method is done after some 3 times the longer of tail and period.
        at_least=max(known, WALK_LIMIT // 4),
        at_most=most + tail,
        by="not known",
    )


def _exact(tail: int, period: int, by: str) -> Orbit:
    states = tail + period
    return Orbit(tail=tail, period=period, at_least=states, at_most=states, by=by)


def _square(vector: tuple[int, int]) -> int:
    return vector[0] ** 2 + vector[1] ** 2


def _integer(name: str, value: object) -> int:
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what is no integer raises
    except TypeError:
        raise UsageError(
            f"{name} = {value!r} is no integer",
            where=name,
            why="the states of the generator are whole numbers",
            next_step=f"give {name} as an integer such as 12345, 0xff or 2**32",
        ) from None


def _short(number: int) -> str:
    """A number that is not too long to read, nor for `int` to print."""
    if abs(number) < 10**40:
        return str(number)
    return f"{'-' if number < 0 else ''}a number of {number.bit_length()} bits"
