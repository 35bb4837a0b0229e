"""A linear congruential generator found out from its own outputs: parameters by algebra, clock seeds by trying all."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd

from repro_audit.rng.lcg.generator import Lcg

KNOWN_MODULUS_NEEDS = 3
"""Outputs that give A and B away where M is known."""
UNKNOWN_MODULUS_NEEDS = 4
"""Outputs below which nothing can be said of M."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What the outputs say of the generator that made them."""

    lcg: Lcg | None
    """It yields these outputs one after the other; None where none is found, for `reason`."""
    reason: str
    """Why there is none; empty where there is one."""
    certain: bool
    """No other modulus fits. Where False, the true M may be a proper divisor of this one."""
    alike: int
    """So many multipliers modulo M fit, and all predict the same outputs from here on."""


def recover(outputs: Sequence[int], modulus: int | None = None) -> Recovery:
    """The parameters of the LCG that put these out, one after the other, each being its whole state.

    With M known, three outputs suffice: A * (x1-x0) = x2-x1 modulo M. With M unknown, every two pairs of differences d
    make a determinant d[i]*d[j+1] - d[j]*d[i+1] that M divides; M is their greatest common divisor as soon as there
    are enough of them. The determinants are taken of differences divided by their common factor, so that they do not
    all carry it.

    Args:
        outputs: at least 3, and 4 where the modulus is not known.
        modulus: M where it is known.

    Sources: Boyar, "Inferring Sequences Produced by Pseudo-Random Number Generators", JACM 36(1), 1989.
    """
    needed = UNKNOWN_MODULUS_NEEDS if modulus is None else KNOWN_MODULUS_NEEDS
    outputs = [operator.index(output) for output in outputs]  # NumPy's integers would wrap around
    if len(outputs) < needed:
        return _none(f"it takes {needed} outputs at least")
    if min(outputs) < 0 or (modulus is not None and max(outputs) >= modulus):
        return _none("an output is no state modulo M")
    if modulus is not None:
        return _verified(outputs, _solve(outputs[0], outputs[1], outputs[2], modulus), certain=True)
    return _recover_all(outputs)


def _recover_all(outputs: Sequence[int]) -> Recovery:
    differences = [after - before for before, after in itertools.pairwise(outputs)]
    common, image = _combined(differences)
    if common == 0 and differences[-1] == 0:
        return _none("the outputs are all the same, whatever M is")
    if common == 0:
        return _none("no modulus fits: these are not the states of any LCG")
    modulus = 0
    for before, after in itertools.pairwise(differences):
        modulus = gcd(modulus, after - before // common * image)
    if modulus == 0:
        return _none(
            "all determinants are 0, as before the first wrap, or once the outputs stand still: M stays open"
        )
    modulus = _solvable(common, image, modulus)
    highest = max(outputs)
    if modulus <= highest:
        return _none("no modulus fits: these are not the states of any LCG")
    start = _solved(common, image, modulus)
    if start is None:
        return _none("no multiplier fits: these are not the states of any LCG")
    found = (_lcg(outputs[0], outputs[1], start[0], modulus), start[1])
    # The true M divides this one and is above every output.
    return _verified(outputs, found, certain=modulus < 2 * (highest + 1))


def _combined(differences: Sequence[int]) -> tuple[int, int]:
    """The gcd g of all differences but the last, and A*g: the same combination of the differences after them."""
    common = image = 0
    for before, after in itertools.pairwise(differences):
        common, first, second = _extended_gcd(common, before)
        image = first * image + second * after
    return common, image


def _extended_gcd(a: int, b: int) -> tuple[int, int, int]:
    """The gcd >= 0 of a and b, and x, y with a*x + b*y equal to it."""
    x, next_x, y, next_y = 1, 0, 0, 1
    while b:
        quotient, rest = divmod(a, b)
        a, b = b, rest
        x, next_x = next_x, x - quotient * next_x
        y, next_y = next_y, y - quotient * next_y
    return (a, x, y) if a >= 0 else (-a, -x, -y)


def _solvable(common: int, image: int, modulus: int) -> int:
    """The largest divisor of `modulus` for which A * common = image has a solution; every such M divides it."""
    while image % (shared := gcd(common, modulus)):
        modulus //= shared // gcd(shared, image)
    return modulus


def _solve(first: int, second: int, third: int, modulus: int) -> tuple[Lcg, int] | None:
    """The generator of three outputs, and how many multipliers would do."""
    solved = _solved(second - first, third - second, modulus)
    return None if solved is None else (_lcg(first, second, solved[0], modulus), solved[1])


def _solved(factor: int, image: int, modulus: int) -> tuple[int, int] | None:
    """The least A with A * factor = image modulo M, and how many there are below M; None where there is none."""
    shared = gcd(factor, modulus)
    if image % shared:
        return None
    part = modulus // shared
    return image // shared * pow(factor // shared, -1, part) % part, shared


def _lcg(first: int, second: int, multiplier: int, modulus: int) -> Lcg:
    return Lcg(
        multiplier=multiplier, increment=(second - multiplier * first) % modulus, modulus=modulus
    )


def _verified(outputs: Sequence[int], found: tuple[Lcg, int] | None, *, certain: bool) -> Recovery:
    """What was found, if it yields every output."""
    if found is None or found[0].outputs(outputs[0], len(outputs) - 1) != list(outputs[1:]):
        return _none("no parameters fit: these are not the states of an LCG with that modulus")
    return Recovery(lcg=found[0], reason="", certain=certain, alike=found[1])


def _none(reason: str) -> Recovery:
    return Recovery(lcg=None, reason=reason, certain=False, alike=0)


def seeds_of(lcg: Lcg, outputs: Sequence[int], candidates: Iterable[int]) -> list[int]:
    """The candidates that, taken modulo M as a seed, yield these outputs: what guessing a clock comes to.

    Args:
        lcg: the generator.
        outputs: its first outputs after seeding.
        candidates: the seeds to try, such as every second of a day.
    """
    first, rest = outputs[0], list(outputs[1:])
    step, modulus = lcg.step, lcg.modulus
    return [
        seed
        for seed in candidates
        if step(seed % modulus) == first and lcg.outputs(first, len(rest)) == rest
    ]
