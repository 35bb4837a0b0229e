"""Number theory for the periods of linear congruential generators: prime factors, orders, valuations.

Factors and primes are SymPy's (https://docs.sympy.org/latest/modules/ntheory.html). Beyond 64 bits a number counts as
prime that passes the test of Baillie, Pomerance, Selfridge and Wagstaff; no composite is known that does.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import prod

FACTOR_LIMIT = 2**18
"""How far factoring goes, of numbers below 128 bits: it finds factors of some 34 bits. Wider ones cost more a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """A number as a product."""

    primes: tuple[tuple[int, int], ...]
    """Primes and their exponents, in ascending order."""
    rest: int
    """What could not be split within the limit; 1 where the factors are all there."""


@functools.lru_cache(maxsize=256)
def factorise(number: int) -> Factors:
    """The prime factors of a number >= 1, as far as `FACTOR_LIMIT` goes."""
    from sympy.ntheory import factorint, isprime  # a second's work, for `rng lcg` alone

    limit = FACTOR_LIMIT // (1 + number.bit_length() // 128)
    found = factorint(number, limit=limit, use_ecm=False)
    primes = {int(factor): exponent for factor, exponent in found.items() if isprime(factor)}
    whole = prod(prime**exponent for prime, exponent in primes.items())
    return Factors(primes=tuple(sorted(primes.items())), rest=number // whole)


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
