"""Captured values, and by how much two of them differ.

A trial saves raw bytes with their dtype and shape; the audit reads them with NumPy alone, which knows neither bfloat16
nor float8, so formats are decoded here. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import xxhash

from repro_audit.storage.facts import Key
from repro_audit.storage.number_formats import Format, format_of

DATA, INDEX = "values.bin", "values.jsonl"
ALIGNMENT = 16
_ELEMENTS_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A captured value as raw bytes."""

    dtype: str
    """As PyTorch writes it, without the `torch.`."""
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8]
    """Mapped from the file, in logical (C) order."""
    of: int = 0
    """Of a sample: how many elements the whole value has, over which these are spread evenly; else 0."""

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def open_values(directory: Path) -> Mapping[Key, Value]:
    """The values that a trial saved, by their keys; empty where it saved none."""
    try:
        lines = (directory / INDEX).read_bytes().split(b"\n")[:-1]
        with (directory / DATA).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError:
        return {}
    data = np.frombuffer(mapped, dtype=np.uint8)
    return dict(_read_entry(json.loads(line), data) for line in lines)


def _read_entry(entry: dict[str, Any], data: npt.NDArray[np.uint8]) -> tuple[Key, Value]:
    step, phase, name, occurrence = entry["key"]
    window = data[entry["start"] : entry["start"] + entry["bytes"]]
    value = Value(
        dtype=entry["dtype"], shape=tuple(entry["shape"]), data=window, of=entry.get("of", 0)
    )
    return (step, phase, name, occurrence), value


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude:
    """By how much two values differ."""

    max_abs: float
    """The largest absolute difference. NaN where a NaN stands against a number, or where shapes, dtypes or the
    meaning of the bytes leave nothing to subtract; two NaNs, and 0.0 and -0.0, are no distance apart."""
    max_ulp: int | None
    """The largest number of steps between neighbouring floats; None where no pair of floats that differs is free of
    NaN, and for values that are no floats."""
    mismatched: int
    """Elements whose bits differ."""
    numel: int
    kind: Literal["value", "order", "nan-or-signed-zero"]
    """`order`: the same rows along the first dimension, in another order. `nan-or-signed-zero`: numerically equal."""
    first_index: tuple[int, ...] | None
    """Where the first difference is, in logical order; None where nothing differs or can be compared."""


def magnitude(a: Value, b: Value) -> Magnitude:
    """Measure the difference of two values, piece by piece; values of other forms differ in every element."""
    if a.dtype != b.dtype or a.shape != b.shape or a.data.nbytes != b.data.nbytes:
        numel = max(a.numel, b.numel)
        return Magnitude(
            max_abs=math.nan,
            max_ulp=None,
            mismatched=numel,
            numel=numel,
            kind="value",
            first_index=None,
        )
    fmt = format_of(a.dtype, a.data.nbytes // a.numel if a.numel else 1)
    tally = _Tally()
    for start, codes_a, codes_b in _pieces(a, b, fmt):
        tally.add(start, codes_a, codes_b, fmt)
    kind: Literal["value", "order", "nan-or-signed-zero"] = "value"
    if tally.mismatched and not tally.numeric:
        kind = "nan-or-signed-zero"
    elif tally.mismatched > 1 and tally.may_be_order and _same_rows(a, b):
        kind = "order"
    return Magnitude(
        max_abs=tally.max_abs,
        max_ulp=tally.max_ulp,
        mismatched=tally.mismatched,
        numel=a.numel,
        kind=kind,
        first_index=_index(tally.first, a.shape),
    )


Codes: TypeAlias = "npt.NDArray[np.unsignedinteger[Any]]"


def _pieces(a: Value, b: Value, fmt: Format) -> Iterator[tuple[int, Codes, Codes]]:
    """The two values' bit patterns, a row an element, so many elements at a time, with the first one's place."""
    codes_a = a.data.view(fmt.code).reshape(a.numel, fmt.components)
    codes_b = b.data.view(fmt.code).reshape(b.numel, fmt.components)
    for start in range(0, a.numel, _ELEMENTS_AT_ONCE):
        window = slice(start, start + _ELEMENTS_AT_ONCE)
        yield start, codes_a[window], codes_b[window]


class _Tally:
    """Adds up the differences of the pieces."""

    def __init__(self) -> None:
        self.max_abs = 0.0
        self.max_ulp: int | None = None
        self.mismatched = 0
        self.numeric = False
        """Some element differs in more than a NaN's payload or a zero's sign."""
        self.first: int | None = None
        self._balance = 0

    @property
    def may_be_order(self) -> bool:
        """Both values have the same sum of bit patterns, as they must if one is the other in another order."""
        return self._balance % (1 << 64) == 0

    def add(self, start: int, codes_a: Codes, codes_b: Codes, fmt: Format) -> None:
        unequal = np.flatnonzero((codes_a != codes_b).any(axis=1))
        if not len(unequal):
            return
        if self.first is None:
            self.first = start + int(unequal[0])
        self.mismatched += len(unequal)
        left, right = codes_a[unequal], codes_b[unequal]
        self._balance += int(left.sum(dtype=np.uint64)) - int(right.sum(dtype=np.uint64))
        distance = fmt.distance(left, right)
        self.numeric = self.numeric or bool((distance != 0).any())
        self.max_abs = _larger(self.max_abs, float(distance.max()))
        ulps = fmt.ulps(left, right)
        if ulps is not None:
            self.max_ulp = max(self.max_ulp or 0, ulps)


def _larger(a: float, b: float) -> float:
    """The larger of two numbers; NaN where one is NaN, which `max` leaves to chance."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def _index(flat: int | None, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return None if flat is None else tuple(int(each) for each in np.unravel_index(flat, shape))


def _same_rows(a: Value, b: Value) -> bool:
    """Whether both have the same rows along the first dimension, each as often."""
    if not a.shape or a.shape[0] <= 1:
        return False
    size = a.data.nbytes // a.shape[0]
    if size in {1, 2, 4, 8}:
        code = np.dtype(f"<u{size}")
        return np.array_equal(np.sort(a.data.view(code)), np.sort(b.data.view(code)))
    return _row_digests(a, size) == _row_digests(b, size)


def _row_digests(value: Value, size: int) -> list[bytes]:
    data: Any = value.data
    digests = (xxhash.xxh3_128_digest(data[at : at + size]) for at in range(0, len(data), size))
    return sorted(digests)
