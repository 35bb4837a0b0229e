"""Digests of whatever a variable holds, bounded in size and without running any of the program's code.

Tensors, arrays, numbers, texts and nested containers of them count by their contents, sets without their order, random
generators by their state. Of what is large, the beginning, the end and the size count. All else (modules, functions,
classes, objects of unknown types) counts by the name of its type.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import marshal
import pathlib
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
import xxhash

from repro_audit.probe.digest.generators import KINDS, digest_of
from repro_audit.probe.digest.plain import NUMBERS, encode, frame, type_name
from repro_audit.probe.digest.stored import MISSING, is_generator, per_type, stored_in
from repro_audit.probe.digest.tensors import describe, is_being_captured, plainly
from repro_audit.probe.digest.tensors import digest as digest_whole
from repro_audit.torch_internals import tensors as internals

WHOLE_BYTES = 1 << 24
"""A tensor or an array with more bytes counts by its ends."""
_END_BYTES = 1 << 16
_MOST_TEXT = 1 << 20
_MOST_ITEMS = 256
_MOST_SET_ITEMS = 1 << 14
_MOST_DEPTH = 8
_MOST_LEAVES = 4096
_MOST_BYTES = 1 << 26
"""Of the tensors and arrays in one container; further ones count by their form."""

_KNOWN = (
    *(enum.Enum, np.generic, slice, range, dt.date, dt.time, dt.timedelta, decimal.Decimal),
    *(fractions.Fraction, uuid.UUID, pathlib.PurePath, np.dtype, int, float, complex),
)
_FAKE_TENSOR: type = internals.FAKE_TENSOR.get()
_NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_UNBOUND = xxhash.xxh3_128_digest(b"unbound")
_hash: Callable[[Any], bytes] = xxhash.xxh3_128_digest


def digest(value: Any) -> bytes:
    """The digest of a value, 16 bytes long."""
    kind = type(value)
    if kind in NUMBERS:
        return _number(value)
    read = _reader(kind)
    return _Walk().digest(value, 0) if read is None else read(value)


def _number(value: Any) -> bytes:
    return _hash(b"#" + marshal.dumps(value, 2))  # as `plain.encode` does, for half the cost


class _Walk:
    """How much of one value was read."""

    __slots__ = ("bytes", "leaves")

    def __init__(self) -> None:
        self.bytes = self.leaves = 0

    def digest(self, value: Any, depth: int) -> bytes:
        """The digest of a value that lies so deep in another."""
        self.leaves += 1
        read = _reader(type(value))
        if read is _tensor or read is _array:
            self.bytes += _size(value)
            if self.bytes > _MOST_BYTES:
                return _hash(describe(value).encode())
        if read is not None:
            return read(value)
        if depth >= _MOST_DEPTH or self.leaves > _MOST_LEAVES:
            return _by_type(value)
        return self._container(value, depth + 1)

    def _container(self, value: Any, depth: int) -> bytes:
        kind = type(value)
        size, items = _items(value)
        head = f"{type_name(value)}[{size}]".encode()
        if issubclass(kind, (set, frozenset)):
            inner = sorted(self.digest(item, depth) for item in items)
            return _hash(head + b"".join(inner))
        return _hash(head + b"".join(self.digest(item, depth) for item in items))


def _items(value: Any) -> tuple[int, Iterable[Any]]:
    """How many items a container has, and those that count: keys and values in turn, of an object its fields."""
    kind = type(value)
    if issubclass(kind, dict):
        size = dict.__len__(value)
        pairs = OrderedDict.items(value) if issubclass(kind, OrderedDict) else dict.items(value)
        found = pairs if size <= _MOST_ITEMS else (*islice(pairs, _MOST_ITEMS - 1), _last(value))
        return size, chain.from_iterable(found)
    for base in (list, tuple, deque):
        if issubclass(kind, base):
            return _ends(base, value)
    if issubclass(kind, (set, frozenset)):
        kind_of_set: Any = set if issubclass(kind, set) else frozenset
        size = kind_of_set.__len__(value)
        return size, kind_of_set.__iter__(value) if size <= _MOST_SET_ITEMS else ()
    stored = stored_in(value)
    names = [each.name for each in dataclasses.fields(kind)]
    return len(names), chain.from_iterable((name, stored.get(name)) for name in names)


def _last(value: Any) -> tuple[Any, Any]:
    reverse = OrderedDict.__reversed__ if isinstance(value, OrderedDict) else dict.__reversed__
    key = next(reverse(value))
    return key, dict.__getitem__(value, key)


def _ends(base: Any, value: Any) -> tuple[int, Iterable[Any]]:
    size = base.__len__(value)
    if size <= _MOST_ITEMS:
        return size, base.__iter__(value)
    half = _MOST_ITEMS // 2
    get = base.__getitem__
    return size, (get(value, at) for at in chain(range(half), range(size - half, size)))


@per_type
def _reader(  # noqa: PLR0911 - one for each sort of value
    kind: type,
) -> Callable[[Any], bytes] | None:
    """What reads the values of a type, by base class; None for a container."""
    if kind in NUMBERS:
        return _number
    if issubclass(kind, torch.Tensor):
        return _tensor
    if issubclass(kind, np.ndarray):
        return _array
    if issubclass(kind, (str, bytes, bytearray)):
        return _text
    if issubclass(kind, KINDS):
        return _generator
    if issubclass(kind, _KNOWN):
        return _known
    if issubclass(kind, _NAMED):
        return lambda value: _hash(str(value).encode())
    if kind is type(MISSING):
        return lambda value: _UNBOUND if value is MISSING else _by_type(value)
    is_container = issubclass(kind, (list, tuple, deque, dict, set, frozenset))
    return None if is_container or dataclasses.is_dataclass(kind) else _by_type


def _by_type(value: Any) -> bytes:
    return _hash(b"?" + type_name(value).encode("utf-8", "surrogatepass"))


def _known(value: Any) -> bytes:
    data = encode(value)
    return _by_type(value) if data is None else _hash(data)


def _generator(value: Any) -> bytes:
    return digest_of(value) if is_generator(value) else _by_type(value)


def _text(value: Any) -> bytes:
    base: Any = next(base for base in (str, bytes, bytearray) if issubclass(type(value), base))
    size = base.__len__(value)
    if size <= _MOST_TEXT:
        data = encode(value)
        return _by_type(value) if data is None else _hash(data)
    ends = (
        base.__getitem__(value, slice(_END_BYTES)),
        base.__getitem__(value, slice(-_END_BYTES, None)),
    )
    return _hash(b"%d" % size + frame(encode(end) or b"" for end in ends))


def _array(value: Any) -> bytes:
    if value.nbytes <= WHOLE_BYTES or value.dtype.hasobject:
        if value.dtype.hasobject and value.size > _MOST_ITEMS:
            return _by_type(value)
        return _hash(describe(value).encode() + digest_whole(value))
    flat = np.ndarray.view(value, np.ndarray).flat
    count = max(1, _END_BYTES // value.itemsize)
    ends = (flat[:count].tobytes(), flat[-count:].tobytes())
    return _hash(describe(value).encode() + frame(ends))


def _tensor(value: Any) -> bytes:
    form = describe(value).encode()
    if is_being_captured(value):
        return _hash(form)  # reading it would break the capture
    is_large = (
        value.layout is torch.strided
        and not value.is_nested
        and value.nbytes > WHOLE_BYTES
        and value.device.type in {"cpu", "cuda"}
        and not issubclass(type(value), _FAKE_TENSOR)
    )
    return _hash(form + (_ends_of_tensor(value) if is_large else digest_whole(value)))


def _size(value: Any) -> int:
    """Bytes that are read of an array or a tensor; sparse and nested ones count as none."""
    if issubclass(type(value), torch.Tensor) and (
        value.layout is not torch.strided or value.is_nested
    ):
        return 0
    size: int = value.nbytes
    return size if size <= WHOLE_BYTES else 2 * _END_BYTES


def _ends_of_tensor(value: torch.Tensor) -> bytes:
    """The first rows and the last, of the first row and the last where rows are large themselves."""
    with plainly():
        first = last = value.detach()
        while first.dim() > 1 and first[0].nbytes > _END_BYTES:
            first, last = first[0], last[-1]
        rows = max(1, _END_BYTES // max(1, first[0].nbytes))
        return digest_whole(first[:rows]) + digest_whole(last[-rows:])
