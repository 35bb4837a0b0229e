"""Which line made what torch runs for the program: modules, optimizers, loaders, samplers.

Where no line of the program's own is running, as when the audit's own loop trains a `torch.nn.Sequential`, this is the
line to name.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data import DataLoader, distributed, sampler

from repro_audit.probe.detail.running import Running
from repro_audit.probe.detail.sites import Sites
from repro_audit.probe.steps.models import ByIdentity
from repro_audit.replacements import Replacements
from repro_audit.storage.events import Site
from repro_audit.torch_internals import loaders as internals

_MADE = (
    torch.nn.Module,
    torch.optim.Optimizer,
    DataLoader,
    sampler.SequentialSampler,
    sampler.RandomSampler,
    sampler.SubsetRandomSampler,
    sampler.WeightedRandomSampler,
    sampler.BatchSampler,
    distributed.DistributedSampler,
)
"""Classes whose objects are noted. Those of the program's own that derive from them are, through `super().__init__`."""
_is_compiling = torch.compiler.is_compiling
_thread = threading.get_ident


class Makers:
    """Notes who made what, and keeps track of what runs; in the thread that installed it."""

    def __init__(self, intern: Callable[[str], int], sites: Sites) -> None:
        self._intern = intern
        self._sites = sites
        self._lines: ByIdentity[int] = ByIdentity()
        self.running = Running(intern, self.line)
        self._replacements = Replacements()
        self._owner = 0

    def install(self) -> None:
        """Wrap what makes and what runs them. To be undone after whatever wraps the same later."""
        self._owner = _thread()
        self._replacements = Replacements()
        for kind in _MADE:
            self._patch(kind, "__init__", self._noting)
        for internal, make in (
            (internals.BEGIN, self._beginning),
            (internals.NEXT_BATCH, self._loading),
            (internals.NEXT_INDEX, self._sampling),
        ):
            self._patch(*internal.spot(), make)
        for handle in (
            register_optimizer_step_pre_hook(self._enter_optimizer),
            register_optimizer_step_post_hook(self._leave_optimizer),
        ):
            self._replacements.callback(handle.remove)

    def uninstall(self) -> None:
        """Undo `install`."""
        self._owner = 0
        self._replacements.close()

    def line(self, thing: object) -> int:
        """The id of the line that made something; that of nowhere where it was not seen."""
        known = self._lines.get(thing)
        return self._sites.nowhere if known is None else known

    def _patch(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = owner.__dict__[name]
        self._replacements.attribute(owner, name, functools.wraps(original)(make(original)))

    def _note(self, thing: object, frame: FrameType | None) -> None:
        """The outermost `__init__` of a thing calls this first, so later calls change nothing."""
        if self._lines.get(thing) is not None:
            return
        while frame is not None and not self._sites.is_users(frame.f_code):
            frame = frame.f_back
        if frame is not None:
            code = frame.f_code
            site = Site(self._sites.home(code), frame.f_lineno, code.co_name, made=True)
            self._lines.set(thing, self._intern(site.text()))

    def _noting(self, original: Any) -> Any:
        def __init__(thing: Any, /, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - replaces one
            if not _is_compiling() and _thread() == self._owner:
                self._note(thing, sys._getframe(1))
            original(thing, *args, **kwargs)

        return __init__

    # Loaders

    def _beginning(self, original: Any) -> Any:
        def __init__(iterator: Any, loader: Any) -> None:  # noqa: N807 - replaces one
            made = self.line(loader)
            self._lines.set(iterator, made)
            self._run(made, original, iterator, loader)

        return __init__

    def _loading(self, original: Any) -> Any:
        def __next__(iterator: Any) -> Any:  # noqa: N807 - replaces one
            return self._run(self.line(iterator), original, iterator)

        return __next__

    def _sampling(self, original: Any) -> Any:
        def _next_index(iterator: Any) -> Any:
            drawn = getattr(iterator, internals.INDEX_SAMPLER.name, None)
            while type(drawn) is sampler.BatchSampler:
                drawn = drawn.sampler
            made = self.line(drawn)
            if made == self._sites.nowhere:
                made = self.line(iterator)
            return self._run(made, original, iterator)

        return _next_index

    def _run(self, made: int, original: Any, *args: Any) -> Any:
        if _is_compiling() or _thread() != self._owner:
            return original(*args)
        self.running.enter(made)
        try:
            return original(*args)
        finally:
            self.running.leave()

    # Optimizers

    def _enter_optimizer(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if not _is_compiling() and _thread() == self._owner:
            # Of an earlier step that an exception left: no optimizer runs inside of itself.
            self.running.leave_all_since(optimizer)
            self.running.enter(self.line(optimizer), optimizer)

    def _leave_optimizer(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if not _is_compiling() and _thread() == self._owner:
            self.running.leave_all_since(optimizer)
