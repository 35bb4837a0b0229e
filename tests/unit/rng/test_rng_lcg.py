"""Linear congruential generators: conditions, periods and recovery, each against walking the states one by one."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from repro_audit.errors import UsageError
from repro_audit.rng import Lcg, recover, seeds_of
from repro_audit.rng.lcg.anatomy import dissect
from repro_audit.rng.lcg.arithmetic import factorise, order
from repro_audit.rng.lcg.generator import WALK_LIMIT, find_cycle, nu_limit


def lcg(a: int, b: int, m: int) -> Lcg:
    return Lcg(multiplier=a, increment=b, modulus=m)


@st.composite
def generators(draw: st.DrawFn, limit: int) -> tuple[Lcg, int]:
    """A generator with a modulus up to `limit`, half of them with many small factors, and a seed."""
    plain = st.integers(1, limit)
    smooth = st.lists(st.sampled_from([2, 2, 2, 3, 3, 5, 7]), max_size=12).map(prod)
    modulus = draw(plain | smooth.filter(lambda number: number <= limit))
    states = st.integers(0, modulus - 1)
    return lcg(draw(states), draw(states), modulus), draw(states)


def walked(generator: Lcg, seed: int) -> tuple[int, int]:
    """Tail and period by remembering every state."""
    seen: dict[int, int] = {}
    while seed not in seen:
        seen[seed] = len(seen)
        seed = generator.step(seed)
    return seen[seed], len(seen) - seen[seed]


class TestPeriod:
    def test_all_small_generators_from_all_seeds(self) -> None:
        for m in range(1, 14):
            for a, b in product(range(m), repeat=2):
                generator = lcg(a, b, m)
                orbits = []
                for seed in range(m):
                    orbit = generator.orbit(seed)
                    orbits.append((orbit.tail, orbit.period))
                    assert orbits[-1] == walked(generator, seed), (a, b, m, seed)
                assert generator.hull_dobell().full == all(orbit == (0, m) for orbit in orbits)

    @given(generators(limit=3000))
    def test_algebra_agrees_with_walking(self, drawn: tuple[Lcg, int]) -> None:
        generator, seed = drawn
        orbit = generator.orbit(seed)
        assert (orbit.tail, orbit.period) == walked(generator, seed)
        assert find_cycle(generator.step, seed, 10_000) == walked(generator, seed)
        assert generator.hull_dobell().full == (orbit.period == generator.modulus)

    @given(generators(limit=2**64), st.integers(0, 300))
    def test_a_jump_is_as_many_steps(self, drawn: tuple[Lcg, int], steps: int) -> None:
        generator, seed = drawn
        assert generator.after(seed, steps) == [seed, *generator.outputs(seed, steps)][-1]

    @pytest.mark.parametrize(
        ("a", "b", "m", "period"),
        [
            # Full periods.
            (6364136223846793005, 1442695040888963407, 2**64, 2**64),
            (1664525, 1013904223, 2**32, 2**32),
            (0x2360ED051FC65DA44385DF649FCCF645, 1, 2**128, 2**128),
            (10**40 + 1, 3, 10**40 * 10, 10**41),
            # Multiplicative: M-1 for a primitive root of a prime, M/4 for a power of two.
            (16807, 0, 2**31 - 1, 2**31 - 2),
            (65539, 0, 2**31, 2**29),
            (6364136223846793005, 0, 2**64, 2**62),
        ],
    )
    def test_big_moduli(self, a: int, b: int, m: int, period: int) -> None:
        generator = lcg(a, b, m)
        orbit = generator.orbit(1)
        assert orbit.tail == 0
        assert generator.after(1, period) == 1
        for prime, _ in factorise(period).primes:
            assert generator.after(1, period // prime) != 1
        assert orbit.period == period

    def test_what_can_not_be_factored_gets_bounds(self) -> None:
        m = (10**30 + 57) * (10**31 + 33)
        orbit = lcg(5, 3, m).orbit(1)
        assert orbit.period is orbit.tail is None
        assert WALK_LIMIT // 4 <= orbit.at_least < orbit.at_most <= m
        assert orbit.by == "not known"

    def test_the_conditions_need_no_factors(self) -> None:
        m = (10**30 + 57) * (10**31 + 33)
        assert lcg(1, 7, m).orbit(5).period == m
        assert not lcg(2, 7, m).hull_dobell().full
        # Additive, with a common factor of B and M: the period is M / gcd(B, M).
        assert lcg(1, 10**30 + 57, m).orbit(5).period == 10**31 + 33

    def test_a_short_period_of_such_a_modulus_is_walked(self) -> None:
        m = (10**30 + 57) * (10**31 + 33)
        orbit = lcg(m - 1, 3, m).orbit(1)
        assert (orbit.tail, orbit.period, orbit.by) == (0, 2, "cycle finding")

    def test_conditions_with_their_numbers(self) -> None:
        found = lcg(7, 6, 60).hull_dobell()
        assert found.gcd == 6
        assert found.primes == ((2, True), (3, True), (5, False))
        assert (found.four, found.coprime, found.primes_divide) == (False, False, False)
        assert lcg(4, 1, 9).hull_dobell().four is None

    def test_low_bits_of_a_power_of_two(self) -> None:
        found = dissect(lcg(1103515245, 12345, 2**31), 1)
        assert [(entry.bits, entry.period) for entry in found.low_bits] == [
            (bits, 2**bits) for bits in (1, 2, 3, 4, 8, 16, 31)
        ]
        assert not dissect(lcg(4, 1, 9), 1).low_bits

    @given(generators(limit=200))
    def test_the_spectral_test_finds_the_shortest_vector(self, drawn: tuple[Lcg, int]) -> None:
        generator, _ = drawn
        m = generator.modulus
        lengths = (
            u * u + v * v
            for v in range(m + 1)
            for u in (-generator.multiplier * v % m, -generator.multiplier * v % m - m)
            if (u, v) != (0, 0)
        )
        assert generator.spectral() == min([m * m, *lengths])
        assert generator.spectral() <= (nu_limit(m) + 1) ** 2


class TestArithmetic:
    def test_what_can_not_be_split_holds_no_prime_that_was_found(self) -> None:
        prime, other = 68719476767, 2**61 - 1
        found = factorise(prime**2 * other)
        assert (prime, 2) in found.primes
        assert found.rest in {1, other}

    def test_no_generator_goes_backwards(self) -> None:
        with pytest.raises(UsageError, match="negative"):
            lcg(5, 1, 16).after(1, -1)

    @given(st.integers(1, 10**12))
    def test_factors_multiply_to_the_number(self, number: int) -> None:
        factors = factorise(number)
        assert factors.rest == 1
        assert prod(prime**exponent for prime, exponent in factors.primes) == number
        assert all(
            all(prime % d for d in range(2, min(prime, 1000))) for prime, _ in factors.primes
        )

    @pytest.mark.parametrize("prime", [2**61 - 1, 2**89 - 1, 2**127 - 1, 10**30 + 57])
    def test_primes_are_known(self, prime: int) -> None:
        assert factorise(prime).primes == ((prime, 1),)
        assert factorise(prime**3).primes == ((prime, 3),)

    def test_strong_pseudoprimes_are_no_primes(self) -> None:
        # The least composite that passes Miller and Rabin's test for the first 12 primes.
        assert factorise(399165290221 * 798330580441).rest > 1

    @given(st.sampled_from([2, 3, 5, 7, 11, 13]), st.integers(1, 5), st.integers(1, 10**6))
    def test_order(self, prime: int, exponent: int, base: int) -> None:
        assume(base % prime)
        modulus, power, count = prime**exponent, base, 1
        while power % modulus != 1 % modulus:
            power, count = power * base % modulus, count + 1
        assert order(base, prime, exponent) == count


class TestRecovery:
    @given(generators(limit=10**9))
    @example((lcg(0, 0, 1), 0))
    def test_three_outputs_suffice_for_a_known_modulus(self, drawn: tuple[Lcg, int]) -> None:
        generator, seed = drawn
        outputs = generator.outputs(seed, 30)
        found = recover(outputs[:3], generator.modulus)
        assert found.lcg is not None
        assert found.lcg.outputs(outputs[0], 29) == outputs[1:]
        assert found.alike >= 1
        if found.alike == 1:
            assert found.lcg == generator

    @given(generators(limit=10**6), st.integers(4, 40))
    def test_without_the_modulus_it_is_found_or_not_claimed(
        self, drawn: tuple[Lcg, int], count: int
    ) -> None:
        generator, seed = drawn
        outputs = generator.outputs(seed, count)
        found = recover(outputs)
        if found.lcg is None:
            assert found.reason.startswith(("the outputs are all", "all determinants"))
        else:
            assert found.lcg.modulus % generator.modulus == 0
            assert found.lcg.outputs(outputs[0], count - 1) == outputs[1:]
            if found.certain:
                assert found.lcg.modulus == generator.modulus

    @given(st.integers(2, 2**40), st.integers(2, 2**40), st.integers(0, 2**40), st.data())
    def test_full_periods_are_cracked_from_a_few_outputs(
        self, m: int, a: int, b: int, data: st.DataObject
    ) -> None:
        generator = lcg(a % m, b % m, m)
        seed = data.draw(st.integers(0, m - 1))
        orbit = generator.orbit(seed)
        assume((orbit.period or 0) > 64 and generator.multiplier > 10**4)
        found = recover(generator.outputs(seed, 60))
        assert found.lcg is not None
        assert found.lcg.modulus % m == 0

    def test_what_is_no_lcg_is_said_to_be_none(self) -> None:
        squares = [number**2 % 1009 for number in range(40)]
        assert recover(squares).lcg is None
        assert recover(squares).reason.startswith("no modulus fits")
        assert recover([1, 2, 4], 5).lcg == lcg(2, 0, 5)
        assert recover([1, 2, 4, 4], 5).lcg is None
        assert recover([1, 9, 4], 5).lcg is None
        assert recover([1, 2], 5).lcg is None

    def test_integers_of_numpy_do_not_wrap(self) -> None:
        generator = lcg(1664525, 1013904223, 2**32)
        outputs = np.array(generator.outputs(1, 12), dtype=np.uint32)
        assert recover(outputs.tolist()) == recover(outputs)  # type: ignore[arg-type]  # what users have
        wide = Lcg(
            multiplier=np.int64(25214903917),  # type: ignore[arg-type]  # likewise
            increment=np.int64(11),  # type: ignore[arg-type]
            modulus=np.int64(2**48),  # type: ignore[arg-type]
        )
        assert wide.outputs(1, 9) == lcg(25214903917, 11, 2**48).outputs(1, 9)

    def test_degenerate_outputs(self) -> None:
        assert recover([5] * 9).reason == "the outputs are all the same, whatever M is"
        assert recover([5, 5, 5, 6]).reason.startswith("no modulus fits")
        for open_modulus in ([3, 18, 93, 468, 2343], [1, 4, 1, 4, 1, 4], [0, 4, 10, 19]):
            assert recover(open_modulus).reason.endswith("M stays open")

    @given(st.lists(st.integers(0, 9), min_size=4, max_size=6))
    def test_any_outputs_get_what_trying_all_parameters_gives(self, outputs: list[int]) -> None:
        fitting = {
            m
            for m in range(max(outputs) + 1, 40)
            if any(
                lcg(a, (outputs[1] - a * outputs[0]) % m, m).outputs(outputs[0], len(outputs) - 1)
                == outputs[1:]
                for a in range(m)
            )
        }
        found = recover(outputs)
        if found.lcg is None:
            assert bool(fitting) == (not found.reason.startswith("no "))
        else:
            assert {m for m in fitting if found.lcg.modulus % m == 0} == fitting
            assert found.lcg.modulus in fitting or found.lcg.modulus >= 40
            assert not found.certain or fitting <= {found.lcg.modulus}

    @given(generators(limit=5000))
    def test_a_seed_is_found_by_trying_all(self, drawn: tuple[Lcg, int]) -> None:
        generator, seed = drawn
        found = seeds_of(generator, generator.outputs(seed, 3), range(generator.modulus))
        assert seed in found
        assert all(generator.outputs(s, 9) == generator.outputs(seed, 9) for s in found)


class TestErrors:
    @pytest.mark.parametrize(
        ("a", "b", "m", "where"),
        [
            (1, 0, 0, "M"),
            (1, 0, -4, "M"),
            (1, 0, 2**1024, "M"),
            (9, 0, 9, "A"),
            (-1, 0, 9, "A"),
            (1, 9, 9, "B"),
            (1.5, 0, 9, "A"),
            (1, "2", 9, "B"),
            (1, 0, None, "M"),
        ],
    )
    def test_parameters_out_of_range(self, a: int, b: int, m: int, where: str) -> None:
        with pytest.raises(UsageError) as caught:
            lcg(a, b, m)
        error = caught.value
        assert error.where == where
        assert error.why
        assert error.next_step
        assert error.exit_code == 2

    @pytest.mark.parametrize("seed", [-1, 9, 2**70])
    def test_seeds_out_of_range(self, seed: int) -> None:
        generator = lcg(1, 1, 9)
        for use in (
            generator.orbit,
            lambda s: generator.outputs(s, 1),
            lambda s: dissect(generator, s),
        ):
            with pytest.raises(UsageError, match="seed"):
                use(seed)


class TestClock:
    def test_neighbouring_seconds_and_the_search(self) -> None:
        remedy = dissect(lcg(1664525, 1013904223, 2**32), 1).at_start
        assert remedy.equal == 0
        assert (remedy.second[0] - remedy.first[0]) % 2**32 == 1664525
        assert (remedy.tried, remedy.matching, remedy.match) == (86_400, 1, 1_700_000_000)

    def test_a_reading_while_running_and_the_search(self) -> None:
        remedy = dissect(lcg(1664525, 1013904223, 2**32), 1).while_running
        assert remedy.first[:4] == remedy.second[:4]
        assert remedy.equal == 4
        assert (remedy.tried, remedy.matching, remedy.match) == (100_000, 1, 31_337)
