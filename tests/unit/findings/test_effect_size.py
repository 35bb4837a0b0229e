"""A divergence beside the seed's effect, and what a fix costs, from numbers alone."""

from __future__ import annotations

import math

from repro_audit.findings import effect_size
from repro_audit.sources import catalogue, seed_effect

SEEDS = ([3.0, 1.0], [3.0, 2.0], [3.0, 1.5])


def share(*last: float, seeds: tuple[list[float], ...] = SEEDS) -> str | None:
    first, second = last
    return effect_size.share_of_spread(([3.0, first], [3.0, second]), seeds)


def test_the_last_loss_beside_the_spread() -> None:
    assert share(1.0, 1.003) == ("the last loss differs by 0.3% of the spread between 3 seeds (1)")
    assert str(share(1.0, 5.0)).startswith("the last loss differs by 400% of")
    assert "less than 0.0001%" in str(share(1.0, 1.0 + 1e-12))
    assert str(share(1.0, 1.0)).startswith("the last loss is equal")


def test_no_yardstick() -> None:
    assert share(1.0, 2.0, seeds=SEEDS[:2]) is None
    assert share(1.0, 2.0, seeds=(SEEDS[0],) * 3) is None
    assert share(1.0, math.nan) is None
    assert share(1.0, 2.0, seeds=(*SEEDS, [])) is None
    assert share(1.0, 2.0, seeds=(*SEEDS, [3.0, math.inf])) is None


def test_the_cost_of_a_mend_is_a_ratio_of_medians() -> None:
    line = effect_size.cost("one thread takes", [0.3, 0.5], [0.2, 0.2])
    assert line == "one thread takes 2 times as long for a step (medians of 2 and 2 short runs)"
    assert effect_size.cost("one thread takes", [0.3, 0.0], [0.2, 0.2]) is None


def test_a_fix_that_costs_speed_is_compared_with_another_level() -> None:
    costly = {source.id: source.fix_cost for source in catalogue().values() if source.fix_cost}
    assert {"nondeterministic-op", "thread-count"} <= set(costly)
    assert all(how.fixed != how.without for how in costly.values())


def test_further_seeds_are_given_as_the_first_one_was() -> None:
    assert seed_effect.further(seed_effect.ARGUMENT) == (
        "C, as the argument of build()",
        "D, as the argument of build()",
    )
    assert seed_effect.further(seed_effect.AMBIENT)[1] == "D, in every generator"
