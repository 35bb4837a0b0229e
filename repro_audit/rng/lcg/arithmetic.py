"""Number theory for the periods of linear congruential generators: factors with proven primes, orders, valuations.

Nothing here runs without end: factoring stops after a number of steps and says what is left.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import gcd, isqrt

FACTOR_STEPS = 2**19
"""Steps that one factoring may take, in multiplications of 128 bits: factors up to some 34 bits are found."""
_TRIAL_LIMIT = 2**11
_GCD_EVERY = 128
_MILLER_RABIN = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)
_MILLER_RABIN_PROVES_BELOW = 3317044064679887385961981
"""Below this no composite passes all bases: Sorenson and Webster, Math. Comp. 86, 2017."""
_POCKLINGTON_BASES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """A number as a product."""

    primes: tuple[tuple[int, int], ...]
    """Proven primes and their exponents, in ascending order."""
    rest: int
    """What could not be split within the steps, or not be proven prime; 1 where the factors are all there."""


@functools.lru_cache(maxsize=256)
def factorise(number: int) -> Factors:
    """The prime factors of a number >= 1, as far as `FACTOR_STEPS` go."""
    return _Factoring(number, _Budget(FACTOR_STEPS)).result()


class _Budget:
    """Steps left."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def spend(self, steps: int, modulus: int) -> bool:
        """Whether there was enough left; wide numbers cost more."""
        self.steps -= steps * (1 + modulus.bit_length() // 128)
        return self.steps >= 0


class _Factoring:
    """One number on its way to its factors."""

    def __init__(self, number: int, budget: _Budget) -> None:
        self.budget = budget
        self.found: dict[int, int] = {}
        self.rest = 1
        self.open = [self._without_small_factors(number)]

    def result(self) -> Factors:
        while self.open:
            self._split(self.open.pop())
        for prime in list(self.found):  # what could not be split may hold more of them
            while self.rest % prime == 0:
                self._note(prime)
                self.rest //= prime
        return Factors(primes=tuple(sorted(self.found.items())), rest=self.rest)

    def _without_small_factors(self, number: int) -> int:
        for divisor in (2, *range(3, _TRIAL_LIMIT, 2)):
            while number % divisor == 0:
                self._note(divisor)
                number //= divisor
        return number

    def _note(self, prime: int) -> None:
        self.found[prime] = self.found.get(prime, 0) + 1

    def _split(self, number: int) -> None:
        if number == 1:
            return
        prime = _is_prime(number, self.budget)
        if prime:
            self._note(number)
            return
        root, exponent = _as_power(number)
        if exponent > 1:
            self.open.extend([root] * exponent)
            return
        divisor = None if prime is None else _pollard_rho(number, self.budget)
        if divisor is None:
            self.rest *= number
        else:
            self.open.extend((divisor, number // divisor))


def _is_prime(number: int, budget: _Budget) -> bool | None:
    """Whether a number without small factors is prime; None where it looks so and no proof was found."""
    if not all(_passes_miller_rabin(number, base) for base in _MILLER_RABIN if base < number):
        return False
    if number < _MILLER_RABIN_PROVES_BELOW:
        return True
    return True if _pocklington_proves(number, budget) else None


def _passes_miller_rabin(number: int, base: int) -> bool:
    odd = number - 1
    twos = valuation(odd, 2)
    power = pow(base, odd >> twos, number)
    if power in {1, number - 1}:
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False


def _pocklington_proves(number: int, budget: _Budget) -> bool:
    """Pocklington's criterion: a factored part of number - 1 above its square root, and a witness for each prime."""
    factors = _Factoring(number - 1, budget).result()
    factored = (number - 1) // factors.rest
    if factored <= isqrt(number):
        return False
    return all(
        any(_is_witness(number, prime, base) for base in range(2, _POCKLINGTON_BASES))
        for prime, _ in factors.primes
    )


def _is_witness(number: int, prime: int, base: int) -> bool:
    return (
        pow(base, number - 1, number) == 1
        and gcd(pow(base, (number - 1) // prime, number) - 1, number) == 1
    )


def _as_power(number: int) -> tuple[int, int]:
    """The number as root ** exponent with the smallest exponent above 1, or (number, 1)."""
    for exponent in range(2, number.bit_length() // (_TRIAL_LIMIT.bit_length() - 1) + 1):
        root = _integer_root(number, exponent)
        if root**exponent == number:
            return root, exponent
    return number, 1


def _integer_root(number: int, exponent: int) -> int:
    """The largest root with root ** exponent <= number, by Newton's iteration from above."""
    root = 1 << -(-number.bit_length() // exponent)
    while True:
        lower = ((exponent - 1) * root + number // root ** (exponent - 1)) // exponent
        if lower >= root:
            return root
        root = lower


def _pollard_rho(number: int, budget: _Budget) -> int | None:
    """A proper divisor of a composite number, by Pollard's rho in Brent's form (BIT 20, 1980); None out of steps."""
    for constant in range(1, 64):
        divisor = _rho_cycle(number, constant, budget)
        if divisor is None or divisor != number:
            return divisor
    return None


def _rho_cycle(number: int, constant: int, budget: _Budget) -> int | None:
    """One sequence; the number itself where its factors all show at the same time."""
    value, length, product = 2, 1, 1
    while True:
        anchor = value
        for done in range(0, length, _GCD_EVERY):
            start = value
            steps = min(_GCD_EVERY, length - done)
            if not budget.spend(steps, number):
                return None
            for _ in range(steps):
                value = (value * value + constant) % number
                product = product * abs(anchor - value) % number
            divisor = gcd(product, number)
            if divisor > 1:
                return divisor if divisor < number else _one_by_one(number, constant, anchor, start)
        length *= 2


def _one_by_one(number: int, constant: int, anchor: int, value: int) -> int:
    """Go over the last steps again, with a gcd each: the product may have met several factors."""
    while True:
        value = (value * value + constant) % number
        divisor = gcd(abs(anchor - value), number)
        if divisor > 1:
            return divisor


def valuation(number: int, prime: int) -> int:
    """How often `prime` divides `number`, which is not 0."""
    count = 0
    while number % prime == 0:
        number //= prime
        count += 1
    return count


def order(base: int, prime: int, exponent: int) -> int | None:
    """The least n >= 1 with base**n = 1 modulo prime**exponent; `prime` does not divide `base`.

    None where prime - 1 could not be factored. From the order modulo `prime` (4 for prime 2) upwards it is a matter of
    valuations: Knuth, TAOCP vol. 2, 3.2.1.2, lemma P.
    """
    if exponent == 0:
        return 1
    modulus = prime**exponent
    small: int | None = 2 - (base % 4 == 1) if prime == 2 else _order_modulo_prime(base, prime)  # noqa: PLR2004
    if small is None:
        return None
    if pow(base, small, modulus) == 1 % modulus:
        # Only for modulus 2 may the order be smaller than what was started from.
        return 1 if modulus == 2 else small  # noqa: PLR2004
    return small * int(prime ** (exponent - valuation(pow(base, small, modulus) - 1, prime)))


def _order_modulo_prime(base: int, prime: int) -> int | None:
    factors = factorise(prime - 1)
    number = prime - 1
    if pow(base, number // factors.rest, prime) != 1:
        return None
    number //= factors.rest
    for divisor, _ in factors.primes:
        while number % divisor == 0 and pow(base, number // divisor, prime) == 1:
            number //= divisor
    return number
