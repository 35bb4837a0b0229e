"""What lies within a tolerance counts as equal, and nothing else does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from repro_audit.analysis.compare import compare, unequal_values
from repro_audit.analysis.tolerance import Tolerance, Within, forgive, parse
from repro_audit.errors import UsageError
from repro_audit.storage.trace import Phase, Role
from repro_audit.storage.values import Value
from tests.traces import Row, trace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repro_audit.analysis.compare import Difference


def judged(
    ours: Sequence[float],
    theirs: Sequence[float],
    tolerance: Tolerance,
    *,
    phase: Phase = Phase.FORWARD,
    dtype: str = "float32",
) -> tuple[Difference | None, Within]:
    """What two runs come to that differ in one value."""
    arrays = [np.array(each, dtype=dtype) for each in (ours, theirs)]
    traces = [
        trace_of(
            [
                Row(name="first", digest=bytes(16)),
                Row(phase=phase, name="x", digest=xxhash.xxh3_128_digest(array.tobytes())),
                Row(name="seeds", role=Role.CONTEXT, digest=bytes([number]) * 16),
            ]
        )
        for number, array in enumerate(arrays)
    ]
    values = [
        {
            (0, int(phase), "x", 0): Value(
                dtype=dtype, shape=array.shape, data=array.view(np.uint8).reshape(-1)
            )
        }
        for array in arrays
    ]
    forgiven, within = forgive(
        traces[1], unequal_values(traces[0], traces[1]), values[0], values[1], tolerance
    )
    return compare(traces[0], forgiven), within


@pytest.mark.parametrize(
    ("given_bounds", "theirs", "is_equal"),
    [
        ("abs=1e-3", 1.0009, True),
        ("abs=1e-3", 1.0011, False),
        ("rel=1e-3", 1.0009, True),
        ("rel=1e-3", 1.0011, False),
        ("ulp=4", 1 + 4 * 2**-23, True),
        ("ulp=4", 1 + 5 * 2**-23, False),
        ("ulp=1,abs=1e-3", 1.0009, True),
        ("ulp=0", 1.0009, False),
        ("abs=1e30", math.nan, False),
        ("rel=1e30", math.inf, False),
        ("ulp=1e30", math.inf, False),
    ],
)
def test_bounds(given_bounds: str, theirs: float, is_equal: bool) -> None:
    difference, within = judged([1.0, 2.0], [theirs, 2.0], parse([given_bounds]))
    assert (difference is None) is is_equal
    assert within.outcomes == is_equal


def test_it_says_how_far_they_are_apart() -> None:
    _, within = judged([1.0, 2.0], [1.0 + 2**-23, 2.0 + 2**-21], parse(["abs=1"]))
    assert within == Within(
        outcomes=1, key=(0, int(Phase.FORWARD), "x", 0), max_abs=2**-21, max_ulp=2
    )


def test_a_part_has_its_own() -> None:
    tolerance = parse(["gradients:rel=1e-2"])
    assert judged([1.0], [1.001], tolerance, phase=Phase.BACKWARD)[0] is None
    for phase in (Phase.DATA, Phase.FORWARD, Phase.INIT, Phase.OPTIMIZER):
        assert judged([1.0], [1.001], tolerance, phase=phase)[0] is not None
    tolerance = parse(["rel=1e-2", "parameters:ulp=1"])
    assert judged([1.0], [1.001], tolerance, phase=Phase.DATA)[0] is None
    assert judged([1.0], [1.001], tolerance, phase=Phase.OPTIMIZER)[0] is not None


def test_integers_are_equal_or_not() -> None:
    assert judged([1], [2], parse(["abs=5"]), dtype="int64")[0] is not None


@given(st.lists(st.floats(width=32), min_size=1), st.data())
def test_a_tolerance_of_nothing_forgives_no_number(ours: list[float], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(ours) - 1))
    theirs = [*ours[:at], data.draw(st.floats(width=32)), *ours[at + 1 :]]
    difference, _ = judged(ours, theirs, parse(["ulp=0"]))
    a, b = np.float32(ours[at]), np.float32(theirs[at])
    same = a == b or (np.isnan(a) and np.isnan(b))
    assert same or difference is not None


@pytest.mark.parametrize(
    "text", ["", "ulp", "ulp=", "ulp=x", "ulp=-1", "abs=nan", "rel=inf", "x=1"]
)
def test_what_is_no_tolerance(text: str) -> None:
    with pytest.raises(UsageError, match="is no tolerance") as caught:
        parse([text])
    assert "ulp=4" in caught.value.next_step


def test_a_part_that_there_is_not() -> None:
    with pytest.raises(UsageError) as caught:
        parse(["gradient:ulp=1"])
    assert "gradients" in caught.value.next_step


def test_in_words() -> None:
    assert str(parse(["ulp=4,abs=1e-8"])) == "ulp=4,abs=1e-08"
    assert str(parse(["data:ulp=4", "gradients:rel=0.1"])) == "data:ulp=4 gradients:rel=0.1"
