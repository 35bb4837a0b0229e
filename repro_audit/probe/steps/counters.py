"""The least that a training needs to be driven and stopped: what stands in for the hooks where nothing is observed.

Such a run tells whether the program trains by itself, when it did not under the probe.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import optimizer as torch_optimizer

from repro_audit.probe import Probe, StopTraining

if TYPE_CHECKING:
    from repro_audit.storage.trace import Trace

MOST_BACKWARDS = 512
"""Losses after which a training that has made no step is stopped."""


class Counters:
    """Counts steps and losses, and stops the training; has the methods of `Hooks` that `Probe` calls."""

    by_hand = False

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._backward = torch.autograd.backward
        self._thread = threading.get_ident()

    def install(self) -> None:
        """Count process-wide."""
        self._handle = torch_optimizer.register_optimizer_step_post_hook(lambda *_: self.stepped())
        torch.autograd.backward = self._count_backward

    def uninstall(self) -> None:
        """Leave torch as it was."""
        self._handle.remove()
        torch.autograd.backward = self._backward

    def stepped(self) -> None:
        """Count a step, and end the training with the last one; none of another thread, as with hooks."""
        if threading.get_ident() != self._thread:
            self._probe.other_thread = threading.current_thread().name
            return
        self._probe.steps += 1
        if self._probe.steps == 1:
            self._probe.begun()
        if self._probe.steps >= self._probe.max_steps:
            self._probe.stopped = True
            self._probe.enough()
            raise StopTraining

    def _count_backward(self, *args: Any, **kwargs: Any) -> None:
        self._backward(*args, **kwargs)
        self._probe.backwards += 1
        self._probe.losses.append(0.0)  # a scheduler of the driver's loop may ask for it
        if self._probe.backwards > MOST_BACKWARDS and not self._probe.steps:
            raise StopTraining

    def resume(self, earlier: Trace, *, by_hand: bool) -> None:
        """Nothing is observed."""

    def enter(self, loader: Iterable[Any], most: int | None = None) -> Iterator[Any]:
        """Begin an epoch."""
        return iter(loader)

    def skip(self, *_: object, **__: object) -> bool:
        """Leave an epoch where it is."""
        return False

    def next_batch(self, batches: Iterator[Any]) -> Any:
        """The next batch."""
        return next(batches)

    def module(self, model: Any) -> None:
        """Nothing is observed."""

    def settle(self) -> None:
        """Nothing is observed."""

    def finish(self) -> None:
        """Nothing is observed."""
