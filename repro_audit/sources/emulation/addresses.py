"""Objects numbered in the order of their first use, in place of their addresses; and the heap's layout, shuffled.

The default hash of an object is its address, and so is `id()`. Both are replaced by numbers for objects of the
program's own classes, modules and tensors. A class gets the hash through its C slot, which leaves its attributes, and
so what `@dataclass` finds, as they are. Torch itself keeps the real `id()`, which its compiled guards compare.
"""

from __future__ import annotations

import builtins
import ctypes
import itertools
import random
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from repro_audit.probe.files import is_users, relative
from repro_audit.replacements import Replacements

_BASE, _STEP = 1 << 52, 16
"""Numbers look like addresses that no process can have, an object apart, so none equals a real one."""
_HASH_SLOT = 120
"""Where `PyTypeObject.tp_hash` is, on 64-bit CPython: the same in all versions with a GIL."""
_HASH_SHIFT = 4
"""The default hash drops the bits of an address that alignment makes zero."""
_SCATTER, _SCATTERED = 0x9E37_79B1, 1 << 32
_MOST_PLACES = 20
_SIZES = (*range(64, 513, 16), *range(544, 1025, 32))
"""Of blocks: the size classes of Python's allocator that objects with fields have, and small ones of malloc."""
_BLOCKS = 600
_BYTES_HEADER = 33

Order = Callable[[int], int]
"""From an object's place in the order of first use to its number."""


def ascending(count: int) -> int:
    """Later objects at higher addresses."""
    return count


def descending(count: int) -> int:
    """Later objects at lower addresses."""
    return -count


def scattered(count: int) -> int:
    """Objects all over the memory."""
    return count * _SCATTER % _SCATTERED


class Numbers:
    """The number of each object that is alive and was asked for its hash or id."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._count = itertools.count(1)
        self._known: dict[int, tuple[_Reference, int]] = {}
        self.places: dict[tuple[str, int], str] = {}
        """By the program's line that hashes objects or takes their ids: the name of the first one's class."""
        self._seen: set[tuple[str, int]] = set()
        self._real_id, self._real_hash = id, object.__hash__

    def of(self, value: Any) -> int | None:
        """Its number; None for what can have no weak reference, so that its end would go unnoticed."""
        key = self._real_id(value)
        known = self._known.get(key)
        if known is not None:
            return known[1]
        try:
            reference = _Reference(value, self._drop)
        except TypeError:
            return None
        reference.key = key
        number = _BASE + _STEP * self._order(next(self._count))
        self._known[key] = (reference, number)
        return number

    def _drop(self, reference: _Reference) -> None:
        known = self._known.get(reference.key)
        if known is not None and known[0] is reference:
            del self._known[reference.key]

    def hash(self, value: Any) -> int:
        """What stands for the default hash; called from C, so nothing may pass through it."""
        try:
            number = self.of(value)
            if number is None:
                return self._real_hash(value)
            if len(self.places) < _MOST_PLACES:
                self._note(value)
            return number >> _HASH_SHIFT
        except BaseException:
            return self._real_hash(value)

    def id(self, value: Any) -> int:
        """What stands for `id()`; torch, and code that turns ids into pointers, gets the real one."""
        names = sys._getframe(1).f_globals
        module = names.get("__name__") or ""
        if "ctypes" in names or module.partition(".")[0] in {"torch", "repro_audit"}:
            return self._real_id(value)
        number = self.of(value)
        if number is None:
            return self._real_id(value)
        if len(self.places) < _MOST_PLACES:
            self._note(value)
        return number

    def _note(self, value: Any) -> None:
        frame = sys._getframe(2)
        while frame.f_back is not None and "repro_audit" in frame.f_code.co_filename:
            frame = frame.f_back
        line = (frame.f_code.co_filename, frame.f_lineno)
        if line not in self._seen:
            self._seen.add(line)
            if is_users(line[0]):
                self.places[relative(line[0]), line[1]] = type(value).__name__


class _Reference(weakref.ref):  # type: ignore[type-arg]  # of anything
    __slots__ = ("key",)
    key: int


_callbacks: list[Any] = []
"""Classes outlive their trial in tests, so what their slots call lives for ever."""


def supported() -> bool:
    """Whether this Python keeps the default hash where it is looked for."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8:  # noqa: PLR2004 - bytes
        return False

    class Plain:
        pass

    class Hashed:
        def __hash__(self) -> int:
            return 0

    default = _slot(object).value
    return default is not None and _slot(Plain).value == default != _slot(Hashed).value


def _slot(cls: type) -> ctypes.c_void_p:
    return ctypes.c_void_p.from_address(id(cls) + _HASH_SLOT)


@contextmanager
def numbered(
    numbers: Numbers, when_imported: Callable[[str, Callable[[], None]], None]
) -> Iterator[None]:
    """Put the numbers in place of addresses."""
    prototype = ctypes.PYFUNCTYPE(ctypes.c_ssize_t, ctypes.py_object)
    callback = prototype(numbers.hash)
    _callbacks.append(callback)
    pointer = ctypes.cast(callback, ctypes.c_void_p).value
    default = _slot(object).value

    def number_class(cls: type) -> None:
        if _slot(cls).value == default:
            _slot(cls).value = pointer

    with classes_of_the_program(number_class), Replacements() as replacements:
        replacements.attribute(builtins, "id", numbers.id)

        def number_torch() -> None:
            torch: Any = sys.modules["torch"]
            hashed = _method(numbers.hash)
            replacements.attribute(torch.nn.Module, "__hash__", hashed)
            replacements.attribute(torch.Tensor, "__hash__", hashed)

        when_imported("torch", number_torch)
        yield


def _method(function: Callable[[Any], int]) -> Callable[[Any], int]:
    def __hash__(self: Any) -> int:  # noqa: N807 - stands for one
        return function(self)

    return __hash__


@contextmanager
def classes_of_the_program(made: Callable[[type], None]) -> Iterator[None]:
    """Call `made` with each class that a class statement in the program's own files makes."""
    build: Callable[..., Any] = builtins.__build_class__

    def build_class(body: Any, *args: Any, **keywords: Any) -> Any:
        cls = build(body, *args, **keywords)
        if isinstance(cls, type) and is_users(body.__code__.co_filename):
            made(cls)
        return cls

    with Replacements() as replacements:
        replacements.attribute(builtins, "__build_class__", build_class)
        yield


def shuffle_heap(seed: int) -> None:
    """Leave free blocks of every common size in another order, from which the next objects are made."""
    chance = random.Random(seed)
    for size in _SIZES:
        blocks = [bytes(size - _BYTES_HEADER) for _ in range(_BLOCKS)]
        chance.shuffle(blocks)
        # Some stay, so that their pools stay in use, in the order in which the others were freed.
        _kept.extend(blocks[: _BLOCKS // 10])
        del blocks[: _BLOCKS // 10]
        while blocks:
            blocks.pop()


_kept: list[bytes] = []
