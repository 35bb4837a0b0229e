"""Bytes and names for values that are no tensors: equal bytes for equal values, in every process.

Nothing here may show an address, a hash or the order of a set, which change from run to run while the value does not.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import marshal
import pathlib
import struct
import types
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

NUMBERS = frozenset((type(None), bool, int, float, complex))
SCALARS = NUMBERS | {str, bytes}
SEQUENCES = frozenset((list, tuple, deque))
"""Sequences that the standard collate functions make; their subclasses are looked at more closely."""

_BY_TEXT: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (dt.datetime, dt.datetime.isoformat),
    (dt.date, dt.date.isoformat),
    (dt.time, dt.time.isoformat),
    (dt.timedelta, repr),
    (decimal.Decimal, str),
    (fractions.Fraction, str),
    (uuid.UUID, str),
    (pathlib.PurePath, str),
    (range, repr),
    (type, lambda value: f"{value.__module__}.{value.__qualname__}"),
    (types.FunctionType, lambda value: f"{value.__module__}.{value.__qualname__}"),
    (types.BuiltinFunctionType, lambda value: value.__qualname__),
    (np.dtype, str),
)
"""Types whose text says all of their value and nothing else."""


def type_name(value: object) -> str:
    """The type's full name, without the module where that is `builtins`."""
    kind = type(value)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def frame(parts: Iterable[bytes]) -> bytes:
    """Join parts so that no other parts give the same bytes."""
    return b"".join(struct.pack("<Q", len(part)) + part for part in parts)


def is_plain_sequence(value: Any) -> bool:
    """A list, tuple or deque of scalars only: one leaf rather than one an item. Not where it is empty."""
    return type(value) in SEQUENCES and bool(value) and SCALARS.issuperset(map(type, value))


def encode(value: Any) -> bytes | None:
    """The bytes of a value that is whole in itself; None for a container and for what is unknown."""
    if is_object_array(value):
        return None
    kind = type(value)
    if kind in NUMBERS:
        # Format 2 is binary for floats, so NaN payloads count, and knows no back references.
        return b"#" + marshal.dumps(value, 2)
    if kind in SEQUENCES:
        return _encode_sequence(value)
    for base, encoder in _ENCODERS:
        if isinstance(value, base):
            return encoder(value)
    for base, to_text in _BY_TEXT:
        if isinstance(value, base):
            return b"t" + _text(to_text(value))
    return None


def _encode_sequence(value: list[Any]) -> bytes | None:
    kinds = set(map(type, value))
    if kinds <= NUMBERS:
        return b"#" + marshal.dumps(list(value), 2)
    return b"[" + _encode_all(value) if kinds <= SCALARS else None


def _encode_all(values: Iterable[object]) -> bytes:
    """Each value's bytes, and the type's name of those that have none."""
    return frame(encode_or_name(value) for value in values)


def encode_or_name(value: object) -> bytes:
    """The bytes of a value, or the name of its type where they are out of reach."""
    data = encode(value)
    return b"?" + _text(type_name(value)) if data is None else data


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def is_object_array(value: object) -> bool:
    """An array of references, to objects or to strings of any length, whose own bytes mean nothing."""
    return isinstance(value, np.ndarray) and (value.dtype.hasobject or value.dtype.kind == "T")


def encode_array(value: np.ndarray[Any, Any]) -> bytes:
    """The elements' bytes in C order; of a masked array the mask too. Not for arrays of objects."""
    if isinstance(value, np.ma.MaskedArray):
        return frame((encode_array(np.ma.getdata(value)), encode_array(np.ma.getmaskarray(value))))
    return np.asarray(value).tobytes()


_ENCODERS: tuple[tuple[type, Callable[[Any], bytes]], ...] = (
    (enum.Enum, lambda value: b"e" + _text(f"{type_name(value)}.{value.name}")),
    (str, lambda value: b"s" + _text(value)),
    (bytes, lambda value: b"y" + bytes(value)),
    (bytearray, lambda value: b"y" + bytes(value)),
    (memoryview, lambda value: b"y" + value.tobytes()),
    (np.ndarray, encode_array),
    (np.generic, lambda value: b"g" + encode_array(np.asarray(value))),
    (int, lambda value: b"#" + marshal.dumps(int(value), 2)),
    (float, lambda value: b"#" + marshal.dumps(float(value), 2)),
    (complex, lambda value: b"#" + marshal.dumps(complex(value), 2)),
    (slice, lambda value: b":" + _encode_all((value.start, value.stop, value.step))),
)
"""By base class, in this order, since an `IntEnum` is an int too, and `numpy.float64` a float."""


def describe_array(value: np.ndarray[Any, Any]) -> str:
    """`ndarray float32[4,2]`; the byte order where it is not the machine's."""
    dtype = value.dtype
    kind = str(dtype) if dtype.isnative or dtype.names else dtype.str
    return f"{type(value).__name__} {kind}[{','.join(map(str, value.shape))}]"


def describe_plain(value: object) -> str:
    """The form of a value that is no tensor: its type, and its length where that is fixed by its items."""
    if isinstance(value, np.ndarray):
        return describe_array(value)
    if isinstance(value, (list, tuple, deque, dict, set, frozenset)):
        return f"{type_name(value)}[{len(value)}]"
    return type_name(value)
