"""What objects store, looked up without running any of the program's code: no property and no method is called."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, TypeVar

import numpy as np
import torch

from repro_audit.probe.digest.generators import KINDS
from repro_audit.probe.files import is_users
from repro_audit.torch_internals.tensors import BUFFERS, MODULES, PARAMETERS

T = TypeVar("T")

_MOST_OBJECTS = 4_000
_MOST_ITEMS = 256
MISSING: Any = object()
"""Stands for a variable or an attribute that has no value."""

_CLASS_DATA = (
    *(bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset),
    *(torch.Tensor, np.ndarray, np.generic, *KINDS),
)


def per_type(function: Callable[[type], T]) -> Callable[[type], T]:
    """Remember what a function says of each type; by identity, as a metaclass may define equality."""
    known: dict[int, tuple[type, T]] = {}

    def remembered(kind: type) -> T:
        found = known.get(id(kind))
        if found is None:
            found = known[id(kind)] = (kind, function(kind))
        return found[1]

    return remembered


def attribute(value: Any, name: str) -> Any:
    """A stored attribute of an object, class or module of the program's own, or of a module of torch's."""
    kind = type(value)
    if kind is ModuleType:
        file = vars(value).get("__file__")
        if isinstance(file, str) and is_users(file):
            return vars(value).get(name, MISSING)
        return MISSING
    if issubclass(kind, type):
        return _of_class(value, name, None) if _is_users_class(value) else MISSING
    if not _is_holder(kind):
        return MISSING
    stored = stored_in(value)
    found = stored.get(name, MISSING)
    if found is MISSING and issubclass(kind, torch.nn.Module):
        for group in (PARAMETERS.name, BUFFERS.name, MODULES.name):
            found = (stored.get(group) or {}).get(name, MISSING)
            if found is not MISSING:
                return found
    return found if found is not MISSING else _of_class(kind, name, value)


@per_type
def _is_generator(kind: type) -> bool:
    return issubclass(kind, KINDS) and not issubclass(kind, random.SystemRandom)


def is_generator(value: object) -> bool:
    """Whether a value is a generator with a state, which `SystemRandom` has not; without asking the value."""
    return _is_generator(type(value))


def walk(
    roots: Iterable[tuple[str, Any]],
    items: Callable[[Any], Iterable[tuple[object, Any]] | None],
) -> Iterator[tuple[str, Any]]:
    """Each object once, by the shortest name that leads to it; what has None for `items` as often as it comes."""
    waiting = deque(roots)
    seen: dict[int, Any] = {}
    while waiting and len(seen) < _MOST_OBJECTS:
        name, value = waiting.popleft()
        if id(value) in seen:
            continue
        inner = items(value)
        if inner is not None:
            seen[id(value)] = value  # held, so that its id stays its own
        yield name, value
        waiting.extend((f"{name}.{key}", item) for key, item in inner or ())


def inside(value: Any, most: int = _MOST_ITEMS) -> Iterator[tuple[object, Any]]:
    """What an object holds, by name or position, with names that are alike in every process; `most` of a container."""
    kind = type(value)
    if issubclass(kind, dict):
        for index, (key, item) in enumerate(list(islice(dict.items(value), most))):
            yield key if type(key) in {str, int} else index, item
    elif issubclass(kind, list):
        yield from enumerate(list(islice(list.__iter__(value), most)))
    elif issubclass(kind, tuple):
        yield from enumerate(islice(tuple.__iter__(value), most))
    elif kind is FunctionType:
        for key, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=False):
            with suppress(ValueError):  # an empty cell
                yield key, cell.cell_contents
        yield from enumerate(value.__defaults__ or ())
    elif kind is MethodType:
        yield from (("__self__", value.__self__), ("__func__", value.__func__))
    elif kind is partial:
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif not issubclass(kind, (str, bytes, int, float, type, ModuleType)):
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object stores, in its dictionary and its slots, and what a class of the program's own has for it."""
    yield from list(stored_in(value).items())
    for base in type(value).__mro__[:-1]:
        is_own = _is_users_class(base)
        for key, item in list(vars(base).items()):
            if type(item) is MemberDescriptorType:
                with suppress(AttributeError):  # a slot without a value
                    yield key, item.__get__(value)
            elif is_own and type(item) is not FunctionType:
                yield key, item


def stored_in(value: Any) -> dict[str, Any]:
    """What an object stores in its dictionary; nothing where its class has a say in that."""
    if not _has_plain_dict(type(value)):
        return {}
    try:
        stored = object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return {}
    return stored if type(stored) is dict else {}


def _of_class(kind: type, name: str, value: Any) -> Any:
    """A slot's value, or data at the top level of a class."""
    for base in kind.__mro__:
        found = base.__dict__.get(name, MISSING)
        if found is MISSING:
            continue
        if type(found) is MemberDescriptorType and value is not None:
            try:
                return found.__get__(value)
            except AttributeError:
                return MISSING
        return found if issubclass(type(found), _CLASS_DATA) else MISSING
    return MISSING


@per_type
def _has_plain_dict(kind: type) -> bool:
    return all(
        type(base.__dict__.get("__dict__")) in {GetSetDescriptorType, type(None)}
        for base in kind.__mro__
    )


@per_type
def _is_holder(kind: type) -> bool:
    return issubclass(kind, torch.nn.Module) or _is_users_class(kind)


@per_type
def _is_users_class(kind: type) -> bool:
    """Whether a class is the program's own: by its functions, since its module may be found under no name."""
    for item in vars(kind).values():
        if type(item) is FunctionType and is_users(item.__code__.co_filename):
            return True
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return isinstance(file, str) and is_users(file)
