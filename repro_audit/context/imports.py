"""Callbacks at the moment when a module is first imported.

A program may set environment variables before it imports torch (`OMP_NUM_THREADS`, say), so a fresh trial must not
import torch for it; the seeding and the flags of a setting wait for the program's own import.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from types import ModuleType

_waiting: dict[str, list[Callable[[], None]]] = defaultdict(list)


def when_imported(name: str, callback: Callable[[], None]) -> None:
    """Call `callback` now if the top-level module `name` is loaded, else as soon as its import ends."""
    if name in sys.modules and name not in _waiting:
        callback()
        return
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    _waiting[name].append(callback)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the awaited modules through the other finders, and wraps their loaders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _waiting:
            return None
        for finder in sys.meta_path:
            if isinstance(finder, _Finder):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """Runs the callbacks after the wrapped loader has run the module, and gives the module its own loader back."""

    def __init__(self, wrapped: importlib.abc.Loader) -> None:
        self.wrapped = wrapped

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.wrapped.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.wrapped
        module.__loader__ = self.wrapped
        self.wrapped.exec_module(module)
        for callback in _waiting.pop(module.__name__, []):
            callback()
