"""Captured values come back bit for bit, and differences are measured exactly, in every dtype."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from repro_audit.probe.digest.capture import ValueWriter
from repro_audit.storage import values as values_module
from repro_audit.storage.number_formats import format_of
from repro_audit.storage.values import Magnitude, Value, magnitude, open_values

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

KEY = (0, 2, "output", 0)

FLOAT8 = [
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
COMPLEX = [torch.complex32, torch.complex64, torch.complex128]
INTEGERS = [
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]
DTYPES = [*FLOAT8, *FLOATS, *COMPLEX, *INTEGERS, torch.bool]


def saved(value: object) -> Value:
    """The value as it comes back from disk."""
    with tempfile.TemporaryDirectory() as directory:
        assert ValueWriter(Path(directory)).add(KEY, value)
        read = open_values(Path(directory))[KEY]
        return Value(dtype=read.dtype, shape=read.shape, data=read.data.copy())


def measured(a: object, b: object) -> Magnitude:
    return magnitude(saved(a), saved(b))


def bits(dtype: torch.dtype, count: int = 64) -> torch.Tensor:
    """A tensor of arbitrary bits, NaNs and all."""
    size = torch.empty(0, dtype=dtype).element_size()
    raw = np.random.default_rng(0).integers(0, 2 if dtype is torch.bool else 256, count * size)
    return torch.from_numpy(raw.astype(np.uint8)).view(dtype)


def in_memory(array: npt.NDArray[Any], dtype: str = "") -> Value:
    data = np.frombuffer(array.tobytes(), dtype=np.uint8)
    return Value(dtype=dtype or str(array.dtype), shape=array.shape, data=data)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_survives(dtype: torch.dtype) -> None:
    tensor = bits(dtype).reshape(8, 8).t()
    value = saved(tensor)
    assert (value.dtype, value.shape) == (str(dtype).removeprefix("torch."), (8, 8))
    assert value.data.tobytes() == tensor.contiguous().view(torch.uint8).numpy().tobytes()
    result = magnitude(value, value)
    assert (result.mismatched, result.max_abs, result.max_ulp) == (0, 0.0, None)
    assert (result.kind, result.first_index) == ("value", None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_changed_element_is_found_in_every_dtype(dtype: torch.dtype) -> None:
    tensor = torch.zeros(4, 5).to(dtype)
    other = tensor.clone()
    other[2, 3] = 1
    result = measured(tensor, other)
    assert (result.mismatched, result.numel, result.first_index) == (1, 20, (2, 3))
    # The least number of float8_e8m0fnu, which has no zero, is 2 ** -127.
    assert result.max_abs == 1.0 or dtype is torch.float8_e8m0fnu
    assert (result.max_ulp is None) == (dtype in {*INTEGERS, torch.bool})
    assert result.kind == "value"


@pytest.mark.parametrize("dtype", FLOAT8, ids=str)
def test_float8_is_decoded_as_pytorch_does(dtype: torch.dtype) -> None:
    codes = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(codes).view(dtype).to(torch.float64).numpy()
    decode = format_of(str(dtype).removeprefix("torch."), 1).decode
    assert decode is not None
    np.testing.assert_array_equal(decode(codes), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_two_byte_floats_are_decoded_as_pytorch_does(dtype: torch.dtype) -> None:
    codes = np.arange(1 << 16, dtype=np.uint16)
    expected = torch.from_numpy(codes).view(dtype).to(torch.float64).numpy()
    decode = format_of(str(dtype).removeprefix("torch."), 2).decode
    assert decode is not None
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(decode(codes), expected)


def neighbours(dtype: torch.dtype) -> npt.NDArray[np.float64]:
    """All finite numbers of a small format, each once, in order."""
    size = torch.empty(0, dtype=dtype).element_size()
    codes = np.arange(1 << (8 * size)).astype(np.dtype(f"u{size}"))
    numbers = torch.from_numpy(codes).view(dtype).to(torch.float64).numpy()
    return np.unique(numbers[np.isfinite(numbers)])


@pytest.mark.parametrize("dtype", [*FLOAT8, torch.float16, torch.bfloat16], ids=str)
def test_ulps_count_the_numbers_between(dtype: torch.dtype) -> None:
    numbers = neighbours(dtype)
    generator = np.random.default_rng(0)
    for low, high in generator.integers(0, len(numbers), (30, 2)).tolist():
        a = torch.tensor([numbers[low]], dtype=torch.float64).to(dtype)
        b = torch.tensor([numbers[high]], dtype=torch.float64).to(dtype)
        result = measured(a, b)
        assert (result.max_ulp or 0) == abs(high - low)
        assert result.max_abs == abs(numbers[high] - numbers[low])


@given(
    start=st.floats(width=32, allow_nan=False, allow_infinity=False),
    steps=st.integers(0, 50),
    kind=st.sampled_from([np.float32, np.float64]),
)
def test_ulps_count_steps_of_nextafter(
    start: float, steps: int, kind: Callable[[float], np.floating[Any]]
) -> None:
    here = there = kind(start)
    with np.errstate(over="ignore"):
        for _ in range(steps):
            there = np.nextafter(there, kind(np.inf))
    result = magnitude(in_memory(np.array([here])), in_memory(np.array([there])))
    expected = steps if np.isfinite(there) else (result.max_ulp or 0)
    assert (result.max_ulp or 0) == expected
    if steps == 1 and np.isfinite(there) and here > 0:
        assert result.max_abs == float(np.spacing(here))


@given(
    arrays=hnp.array_shapes(max_dims=3, max_side=4).flatmap(
        lambda shape: st.tuples(*[hnp.arrays(np.float64, shape, elements=st.floats())] * 2)
    )
)
def test_floats_agree_with_plain_arithmetic(
    arrays: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
) -> None:
    a, b = arrays
    result = magnitude(in_memory(a), in_memory(b))
    flat = list(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    unequal = [
        at for at, (x, y) in enumerate(flat) if np.float64(x).tobytes() != np.float64(y).tobytes()
    ]
    gaps = [0.0 if x == y or (math.isnan(x) and math.isnan(y)) else abs(x - y) for x, y in flat]
    assert result.mismatched == len(unequal)
    if any(math.isnan(gap) for gap in gaps):
        assert math.isnan(result.max_abs)
    else:
        assert result.max_abs == max(gaps)
    if unequal:
        assert result.first_index == tuple(map(int, np.unravel_index(unequal[0], a.shape)))
        assert (result.kind == "nan-or-signed-zero") == (not any(gap != 0 for gap in gaps))


@given(
    data=st.data(),
    kind=st.sampled_from(
        ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    ),
)
def test_integers_agree_with_plain_arithmetic(data: st.DataObject, kind: str) -> None:
    elements = hnp.arrays(np.dtype(kind), 5)
    a, b = data.draw(elements), data.draw(elements)
    result = magnitude(in_memory(a), in_memory(b))
    gaps = [abs(x - y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert (result.max_abs, result.mismatched) == (float(max(gaps)), sum(map(bool, gaps)))
    assert result.max_ulp is None


@given(data=st.data(), width=st.integers(1, 9), kind=st.sampled_from(["u1", "f4", "f8", "i8"]))
def test_permuted_rows_are_order_and_other_rows_are_not(
    data: st.DataObject, width: int, kind: str
) -> None:
    rows = np.arange(6 * width).reshape(6, width).astype(kind)
    permuted = rows[data.draw(st.permutations(range(6)))]
    result = magnitude(in_memory(rows), in_memory(permuted))
    assert result.kind == ("value" if (rows == permuted).all() else "order")
    other = permuted.copy()
    other[0, 0] += 100
    assert magnitude(in_memory(rows), in_memory(other)).kind == "value"


def test_swapped_columns_are_no_order() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    assert magnitude(in_memory(rows), in_memory(rows[:, ::-1].copy())).kind == "value"
    assert magnitude(in_memory(rows), in_memory(rows[::-1].copy())).kind == "order"


def test_rows_that_come_as_often_are_order_and_those_that_do_not_are_not() -> None:
    a, b = np.array([1, 1, 2, 4]), np.array([4, 1, 1, 2])
    assert magnitude(in_memory(a), in_memory(b)).kind == "order"
    # The same sum and the same set, each not as often.
    assert (
        magnitude(in_memory(np.array([0, 0, 3, 3])), in_memory(np.array([0, 1, 2, 3]))).kind
        == "value"
    )


@pytest.mark.parametrize("dtype", [*FLOATS, torch.complex64, torch.float8_e5m2], ids=str)
def test_signed_zeros_are_told_apart_and_said_to_be_nothing_more(dtype: torch.dtype) -> None:
    zeros = torch.zeros(3)
    result = measured(zeros.to(dtype), (-zeros).to(dtype))
    assert (result.mismatched, result.max_abs, result.max_ulp) == (3, 0.0, 0)
    assert result.kind == "nan-or-signed-zero"


def test_nan_payloads_are_told_apart_and_said_to_be_nothing_more() -> None:
    a = torch.tensor([0x7FC00000, 0x3F800000], dtype=torch.int32).view(torch.float32)
    b = torch.tensor([0x7FC00001, 0x3F800000], dtype=torch.int32).view(torch.float32)
    result = measured(a, b)
    assert (result.mismatched, result.max_abs, result.max_ulp) == (1, 0.0, None)
    assert result.kind == "nan-or-signed-zero"


def test_nan_against_a_number_is_a_value() -> None:
    result = measured(torch.tensor([math.nan, 1.0]), torch.tensor([1.0, 3.0]))
    assert math.isnan(result.max_abs)
    assert (result.kind, result.mismatched) == ("value", 2)
    assert result.max_ulp == 1 << 23 | 1 << 22


def test_infinities() -> None:
    result = measured(torch.tensor([math.inf]), torch.tensor([-math.inf]))
    assert (result.max_abs, result.max_ulp) == (math.inf, 2 * 0x7F800000)
    assert measured(
        torch.tensor([math.inf]).double(), torch.tensor([-math.inf]).double()
    ).max_ulp == (2 * 0x7FF0000000000000)


def test_complex_distance_is_that_in_the_plane() -> None:
    a, b = torch.tensor([1 + 1j, 2 + 2j]), torch.tensor([4 + 5j, 2 + 2j])
    result = measured(a, b)
    assert (result.max_abs, result.mismatched, result.numel) == (5.0, 1, 2)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.zeros(3), torch.zeros(4)),
        (torch.zeros(4), torch.zeros(2, 2)),
        (torch.zeros(3), torch.zeros(3).double()),
    ],
)
def test_other_forms_differ_in_everything(a: torch.Tensor, b: torch.Tensor) -> None:
    result = measured(a, b)
    assert math.isnan(result.max_abs)
    assert result.mismatched == result.numel == max(a.numel(), b.numel())
    assert (result.max_ulp, result.first_index) == (None, None)


def test_what_is_no_number_is_compared_by_its_bytes() -> None:
    a, b = np.zeros(32, dtype=np.uint8), np.arange(32, dtype=np.uint8)
    pair = [Value(dtype="bits128", shape=(2,), data=each) for each in (a, b)]
    result = magnitude(*pair)
    assert math.isnan(result.max_abs)
    assert (result.mismatched, result.max_ulp, result.kind) == (2, None, "value")


def test_zero_sizes_and_scalars() -> None:
    assert measured(torch.zeros(0, 3), torch.zeros(0, 3)).numel == 0
    result = measured(torch.tensor(1.0), torch.tensor(2.0))
    assert (result.first_index, result.max_abs, result.kind) == ((), 1.0, "value")


def test_pieces_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values_module, "_ELEMENTS_AT_ONCE", 3)
    a = np.zeros((5, 2))
    for at in range(10):
        b = a.copy()
        b.ravel()[at] = 1.5
        result = magnitude(in_memory(a), in_memory(b))
        assert (result.mismatched, result.max_abs) == (1, 1.5)
        assert result.first_index == (at // 2, at % 2)
    shifted = np.arange(10.0)
    assert magnitude(in_memory(shifted), in_memory(np.roll(shifted, 5))).kind == "order"


@pytest.mark.parametrize(
    "value",
    [
        1,
        2.5,
        True,
        1j,
        [1, 2],
        (0.5, 1.5),
        np.float32(2),
        np.arange(3)[::-1],
        np.arange(3, dtype=">i4"),
        torch.eye(3).to_sparse(),
        torch.eye(3).conj(),
        torch.zeros(2, 3).expand(4, 2, 3),
        torch.nn.Parameter(torch.ones(2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_with_numbers_is_saved(value: Any) -> None:
    is_tensor = isinstance(value, torch.Tensor)
    expected = value.to_dense().detach().numpy(force=True) if is_tensor else np.array(value)
    read = saved(value)
    assert read.shape == tuple(expected.shape)
    kind = np.dtype(read.dtype)
    np.testing.assert_array_equal(read.data.view(kind).reshape(read.shape), expected)


@pytest.mark.parametrize(
    "value", ["text", None, [], [1, "a"], object(), torch.empty(2, device="meta")]
)
def test_what_has_no_numbers_is_left_out(tmp_path: Path, value: object) -> None:
    assert not ValueWriter(tmp_path / "values").add(KEY, value)
    assert not open_values(tmp_path / "values")


def test_several_values_and_the_latest_of_a_key(tmp_path: Path) -> None:
    writer = ValueWriter(tmp_path)
    other = (1, 3, "grad.weight", 2)
    writer.add(KEY, torch.tensor([1], dtype=torch.uint8))
    writer.add(other, torch.tensor([2.5], dtype=torch.float64))
    writer.add(KEY, torch.tensor([7], dtype=torch.uint8))
    read = open_values(tmp_path)
    assert set(read) == {KEY, other}
    assert read[KEY].data.tolist() == [7]
    assert read[other].data.view(np.float64).tolist() == [2.5]


def test_nothing_saved_reads_as_nothing(tmp_path: Path) -> None:
    assert not open_values(tmp_path / "absent")


def test_a_torn_index_line_is_left_out(tmp_path: Path) -> None:
    ValueWriter(tmp_path).add(KEY, torch.ones(2))
    with (tmp_path / "values.jsonl").open("a", encoding="ascii") as index:
        index.write(json.dumps({"key": [9, 9, "x", 0]})[:-1])
    assert list(open_values(tmp_path)) == [KEY]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_copy_never_writes(tmp_path: Path) -> None:
    writer = ValueWriter(tmp_path)
    pid = os.fork()
    if not pid:
        os._exit(int(writer.add(KEY, 1.0)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not open_values(tmp_path)


@pytest.mark.parametrize("value", [torch.arange(100.0).view(4, 25), np.arange(100.0), [0.5] * 100])
def test_a_sample_is_spread_evenly_and_says_of_how_many(value: Any, tmp_path: Path) -> None:
    writer = ValueWriter(tmp_path, sample=16)
    writer.add((0, 0, "large", 0), value)
    writer.add((0, 0, "small", 0), torch.arange(16))
    found = values_module.open_values(tmp_path)
    large, small = found[0, 0, "large", 0], found[0, 0, "small", 0]
    assert (large.of, small.of) == (100, 0)
    assert (large.shape, small.shape) == ((15,), (16,))
    kept = large.data.view(large.dtype).tolist()
    assert kept == np.asarray(value, dtype=large.dtype).reshape(-1)[::7].tolist()
