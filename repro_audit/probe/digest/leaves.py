"""Walk through whatever a loader or a model hands out: nested containers down to the values that can be compared.

The walk reads and never calls what it does not know: no properties, no iterators that it would use up. It goes by
position and key, never by address, so it takes the same way in every run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from repro_audit.probe.digest.plain import SEQUENCES, is_plain_sequence, type_name

MAX_ITEMS = 1024
"""A container with more items is one leaf: a row for each would say no more than one for all."""
MAX_LEAVES = 4096
"""Once so many leaves were yielded, every further container is one leaf."""
MAX_DEPTH = 32
_MAX_SEARCH = 4
"""How deep the attributes of an unknown object are searched for tensors."""

_ARRAYS = (torch.Tensor, np.ndarray)
_ATOMS = (
    *(torch.Tensor, np.ndarray, torch.nn.Module, torch.dtype, torch.device),
    *(str, bytes, int, float, complex, type, enum.Enum, type(None)),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Again:
    """Stands where a container comes up again, so that no walk is endless."""

    place: int
    """Which of the containers on the way it is."""


class Visit(NamedTuple):
    """One stop of a walk."""

    path: list[str]
    """The keys that lead here; the walk goes on to change it."""
    value: object
    entered: bool
    """The stops that follow, one key deeper, are its items."""


def leaves(obj: object) -> Iterator[tuple[str, object]]:
    """Each value in a nested structure with its name, such as `0.image`; an empty name for a bare value.

    A list of scalars is one leaf, and so is an empty container, or a very large or deep one. An object of an unknown
    type is entered for the tensors among its attributes, and is a leaf without any. Everything is in exactly one leaf;
    keys with the same text give leaves of the same name.
    """
    if isinstance(obj, torch.Tensor):
        yield "", obj
        return
    count = 0

    def enters(depth: int, size: int) -> bool:
        return depth < MAX_DEPTH and size <= MAX_ITEMS and count < MAX_LEAVES

    for visit in _walk(obj, enters):
        if not visit.entered:
            count += 1
            yield ".".join(visit.path), visit.value


def visits(obj: object) -> Iterator[Visit]:
    """Every container, before its items, and every value of a nested structure, however deep and large.

    A container that is found a second time is not entered again: structures that share their parts can be
    exponentially larger than the memory that they take.
    """
    return _walk(obj, lambda _depth, _size: True, once=True)


def _walk(
    root: object, enters: Callable[[int, int], bool], *, once: bool = False
) -> Iterator[Visit]:
    """Visit in order, with a stack of its own: structures may be deeper than Python's."""
    path: list[str] = []
    stack: list[tuple[object, Iterator[tuple[str, object]]]] = []
    places: dict[int, tuple[int, object]] = {}
    """By address, only to recognise them; the containers are kept alive so that no address is used twice."""
    value = root
    while True:
        again = places.get(id(value))
        items = None if again else _items(value)
        if again:
            yield Visit(path, Again(again[0]), entered=False)
        elif items and enters(len(stack), items[0]):
            yield Visit(path, value, entered=True)
            places[id(value)] = (len(places), value)
            stack.append((value, iter(items[1])))
            path.append("")
        else:
            yield Visit(path, value, entered=False)
        while stack:
            following = next(stack[-1][1], None)
            if following is not None:
                path[-1], value = following
                break
            left, _ = stack.pop()
            path.pop()
            if not once:
                del places[id(left)]
        else:
            return


def _items(value: Any) -> tuple[int, Iterable[tuple[str, object]]] | None:
    """How many items a container has, and the items with their labels; None for a leaf."""
    if isinstance(value, _ATOMS) or is_plain_sequence(value):
        return None
    kind = type(value)
    if kind is dict:
        items: Iterable[tuple[str, object]] = ((_label(key), item) for key, item in value.items())
        size = len(value)
    elif kind in SEQUENCES:
        items = ((str(index), item) for index, item in enumerate(value))
        size = len(value)
    else:
        items = _items_of_object(value)
        size = len(items)
    return (size, items) if size else None


def _items_of_object(value: object) -> list[tuple[str, object]]:
    """Items where other people's code has a say, which may fail: then there are none."""
    with contextlib.suppress(Exception):
        kind = type(value)
        if isinstance(value, Mapping):
            return [(_label(key), item) for key, item in value.items()]
        if isinstance(value, (tuple, list, deque)):
            fields = getattr(kind, "_fields", None) if isinstance(value, tuple) else None
            labels = fields if fields is not None else map(str, range(len(value)))
            return list(zip(labels, value, strict=True))
        if dataclasses.is_dataclass(kind):
            return [
                (each.name, getattr(value, each.name, None)) for each in dataclasses.fields(kind)
            ]
        if (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
            return [(each.name, getattr(value, each.name, None)) for each in attributes]
        return [
            (name, item) for name, item in _attributes(value) if _holds_arrays(item, _MAX_SEARCH)
        ]
    return []


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    """What an object stores under names, in the order in which it was stored; nothing that is computed."""
    yield from getattr(value, "__dict__", {}).items()
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            member = base.__dict__.get(name)
            if member is not None and name not in {"__dict__", "__weakref__"}:
                with contextlib.suppress(AttributeError):
                    yield name, member.__get__(value)


def _holds_arrays(value: object, depth: int) -> bool:
    if isinstance(value, _ARRAYS):
        return True
    if not depth or not isinstance(value, (Mapping, list, tuple)) or len(value) > MAX_ITEMS:
        return False
    items = value.values() if isinstance(value, Mapping) else value
    return any(_holds_arrays(item, depth - 1) for item in items)


def _label(key: Any) -> str:
    """A key as part of a name; of a key whose text might show an address, its type."""
    kind = type(key)
    if isinstance(key, enum.Enum):
        return str(key.name)
    if isinstance(key, str):
        return str.__str__(key)
    if kind in {int, bool, float, type(None)} or isinstance(key, (torch.dtype, torch.device)):
        return str(key)
    if kind is tuple:
        return ",".join(_label(part) for part in key)
    return type_name(key)
