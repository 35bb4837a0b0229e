"""How bits make numbers: every dtype of PyTorch, decoded with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Codes: TypeAlias = "npt.NDArray[np.unsignedinteger[Any]]"
Numbers: TypeAlias = "npt.NDArray[np.float64]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A dtype: how many codes make an element, and what a code stands for."""

    code: np.dtype[Any]
    """The unsigned integers that hold the bits of one component."""
    components: int = 1
    """2 for complex numbers."""
    decode: Callable[[Codes], Numbers] | None = None
    """The numbers of a float format, exactly; None for integers and for what is no number."""
    subtract: Callable[[Codes, Codes], Numbers] | None = None
    """The absolute differences of an integer format."""
    signed: bool = True
    """The highest bit of a float's code is its sign."""

    def distance(self, a: Codes, b: Codes) -> Numbers:
        """How far apart elements are (a row each): 0 for two NaNs, NaN for one NaN or for what is no number."""
        if self.subtract is not None:
            return self.subtract(a, b)[:, 0]
        if self.decode is None:
            return np.full(len(a), np.nan)
        with np.errstate(invalid="ignore", over="ignore"):
            x, y = self.decode(a), self.decode(b)
            gaps = np.abs(x - y)
        # inf - inf is NaN, and so is what two NaNs leave.
        gaps[(x == y) | (np.isnan(x) & np.isnan(y))] = 0.0
        return gaps[:, 0] if self.components == 1 else np.hypot(gaps[:, 0], gaps[:, 1])

    def ulps(self, a: Codes, b: Codes) -> int | None:
        """The largest number of representable steps between two components; None where there is no such pair."""
        if self.decode is None:
            return None
        with np.errstate(invalid="ignore"):  # signalling NaNs
            pairs = (a != b) & ~np.isnan(self.decode(a)) & ~np.isnan(self.decode(b))
        if not pairs.any():
            return None
        return int(_steps(a[pairs], b[pairs], signed=self.signed).max())


def _steps(a: Codes, b: Codes, *, signed: bool) -> npt.NDArray[np.uint64]:
    """Codes count up from zero on either side of it, so that distances are sums or differences of magnitudes."""
    bits = np.uint64(8 * a.dtype.itemsize - 1) if signed else np.uint64(63)
    wide_a, wide_b = a.astype(np.uint64), b.astype(np.uint64)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    size_a, size_b = wide_a & mask, wide_b & mask
    apart = np.maximum(size_a, size_b) - np.minimum(size_a, size_b)
    return np.where(wide_a >> bits == wide_b >> bits, apart, size_a + size_b)


def format_of(dtype: str, element_bytes: int) -> Format:
    """The format of a dtype by its name; one without numbers for a dtype that is not known, by its size."""
    known = _formats().get(dtype)
    if known is not None:
        return known
    width = next(size for size in (8, 4, 2, 1) if element_bytes % size == 0)
    return Format(code=_code(width), components=element_bytes // width)


@cache
def _formats() -> dict[str, Format]:
    formats = {name: _float(name) for name in ("float16", "float32", "float64")}
    formats["bfloat16"] = Format(code=_code(2), decode=_decode_bfloat16)
    for name, part in (
        ("complex32", "float16"),
        ("complex64", "float32"),
        ("complex128", "float64"),
    ):
        formats[name] = Format(code=formats[part].code, components=2, decode=formats[part].decode)
    for size in (1, 2, 4, 8):
        for kind in ("int", "uint"):
            name = f"{kind}{8 * size}"
            formats[name] = Format(code=_code(size), subtract=_subtractor(np.dtype(name)))
    formats["bool"] = Format(code=_code(1), subtract=_subtract_bools)
    for name, table in _tables().items():
        formats[name] = Format(
            code=_code(1), decode=table.__getitem__, signed=name != "float8_e8m0fnu"
        )
    return formats


def _code(size: int) -> np.dtype[Any]:
    return np.dtype(f"<u{size}")


def _float(name: str) -> Format:
    kind = np.dtype(name).newbyteorder("<")

    def decode(codes: Codes) -> Numbers:
        return codes.view(kind).astype(np.float64)

    return Format(code=_code(kind.itemsize), decode=decode)


def _decode_bfloat16(codes: Codes) -> Numbers:
    """The upper half of a float32."""
    numbers: Numbers = (codes.astype("<u4") << np.uint32(16)).view("<f4").astype(np.float64)
    return numbers


def _subtractor(kind: np.dtype[Any]) -> Callable[[Codes, Codes], Numbers]:
    def subtract(a: Codes, b: Codes) -> Numbers:
        """Exact, also where the difference needs a bit more than the type has."""
        larger = a.view(kind) > b.view(kind)
        gaps: Numbers = np.where(larger, a - b, b - a).astype(np.float64)
        return gaps

    return subtract


def _subtract_bools(a: Codes, b: Codes) -> Numbers:
    unequal: Numbers = ((a != 0) != (b != 0)).astype(np.float64)
    return unequal


def _tables() -> dict[str, Numbers]:
    """The 256 numbers of each float8 format; see https://arxiv.org/abs/2209.05433 and ml_dtypes' documentation."""
    codes = np.arange(256)
    finite = {
        "float8_e4m3fn": _small_floats(mantissa_bits=3, bias=7),
        "float8_e5m2": _small_floats(mantissa_bits=2, bias=15),
        "float8_e4m3fnuz": _small_floats(mantissa_bits=3, bias=8),
        "float8_e5m2fnuz": _small_floats(mantissa_bits=2, bias=16),
        "float8_e8m0fnu": np.ldexp(1.0, codes - 127),
    }
    finite["float8_e4m3fn"][[0x7F, 0xFF]] = np.nan
    finite["float8_e5m2"][[*range(0x7D, 0x80), *range(0xFD, 0x100)]] = np.nan
    finite["float8_e5m2"][[0x7C, 0xFC]] = [np.inf, -np.inf]
    finite["float8_e4m3fnuz"][0x80] = np.nan
    finite["float8_e5m2fnuz"][0x80] = np.nan
    finite["float8_e8m0fnu"][0xFF] = np.nan
    return finite


def _small_floats(*, mantissa_bits: int, bias: int) -> Numbers:
    """Sign, exponent, mantissa in 8 bits, as if every code were a finite number."""
    codes = np.arange(256)
    exponent = (codes & 0x7F) >> mantissa_bits
    fraction = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    magnitude = np.where(
        exponent == 0, np.ldexp(fraction, 1 - bias), np.ldexp(1 + fraction, exponent - bias)
    )
    return np.where(codes >> 7 == 1, -magnitude, magnitude)
