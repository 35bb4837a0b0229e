"""Putting values in the place of others, and the originals back."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
_MISSING = object()


class Replacements(ExitStack):
    """What stands in for something else until the end of the block, or `close`. Nothing is replaced after that."""

    def __init__(self) -> None:
        super().__init__()
        self.undone = False
        self.callback(setattr, self, "undone", True)  # noqa: FBT003 - an attribute's value

    def attribute(self, owner: Any, name: str, new: Any) -> None:
        """Replace an attribute that a module, a class or an object has itself, or inherits."""
        old = vars(owner).get(name, _MISSING)

        def put(value: Any) -> None:
            delattr(owner, name) if value is _MISSING else setattr(owner, name, value)

        self.setting(put, old, new)

    def function(self, owner: Any, name: str, new: Any) -> None:
        """Replace a function of a module or a class by one of that name, so that pickle finds it."""
        new.__name__ = new.__qualname__ = name
        new.__module__ = getattr(owner, "__module__", owner.__name__)
        self.attribute(owner, name, new)

    def method(self, cls: type, name: str, new: Any) -> None:
        """Replace what a class of C code defines itself, which Python lets nobody set.

        Subclasses and references that were taken before see it too.
        """
        namespace = gc.get_referents(cls.__dict__)[0]

        def put(value: Any) -> None:
            namespace[name] = value
            ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))

        self.setting(put, namespace[name], new)

    def setting(self, put: Callable[[T], object], old: T, new: T) -> None:
        """Set what `put` sets."""
        if not self.undone:
            put(new)
            self.callback(put, old)


@contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables for a while; None for one that is not set then."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
