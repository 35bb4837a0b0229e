"""The driver's own training loop, for a model, a loader, and what the program says besides."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from repro_audit.context.checkpoint import Checkpoint
from repro_audit.errors import TargetError
from repro_audit.probe import Probe
from repro_audit.probe.digest.tensors import reading
from repro_audit.trial.driver import checkpoint
from repro_audit.trial.driver.bundle import Parts, describe, takes
from repro_audit.trial.driver.losses import Losses, on_device
from repro_audit.trial.driver.notes import Notes

_MOST_IDLE = 256
"""A `train_step` that accumulates gradients over more batches than this never steps."""
_DEFAULT_LR = 0.01
MOST_BATCHES = 500
"""An epoch with more is not taken to its end, even where whole epochs are asked for."""


class Loop:
    """Batches through the model, losses through the optimizers, until enough steps were made."""

    def __init__(
        self,
        parts: Parts,
        *,
        probe: Probe,
        steps: int,
        notes: Notes,
        checkpoint: Checkpoint,
        whole_epochs: bool,
    ) -> None:
        self._parts = parts
        self._whole_epochs = whole_epochs
        self._checkpoint = checkpoint
        self._idle = 0
        """Batches since the last step."""
        self._probe = probe
        self._steps = steps
        self._notes = notes
        self._optimizers = parts.optimizers
        self._device = _device_of(parts.model)
        self._losses = Losses(parts.model, parts.loss_fn, self._device, notes)

    def run(self) -> None:
        """Train. The probe raises `StopTraining` when it has seen enough steps."""
        model = self._parts.model
        if isinstance(model, nn.Module) and not model.training:
            # As from_pretrained() returns it; a submodule that is frozen on purpose stays as it is otherwise.
            model.train()
            self._notes.assume("model: built in evaluation mode, put in training mode")
        for batch in self._batches():
            before = self._probe.steps
            moved = on_device(batch, self._device)
            if self._parts.train_step is not None:
                self._users_step(moved)
            else:
                self._own_step(moved)
            self._idle = 0 if self._probe.steps > before else self._idle + 1
            if self._idle > _MOST_IDLE:
                return

    def roots(self, *, optimizers: bool) -> dict[str, Any]:
        """What the training consists of, by name; with `optimizers`, the default one is made if need be."""
        parts = self._parts
        steppers = self._get_optimizers() if optimizers else self._optimizers
        named = {
            "model": parts.model,
            "optimizer": steppers[0] if len(steppers) == 1 else steppers,
            "scheduler": parts.schedulers[0] if len(parts.schedulers) == 1 else parts.schedulers,
            "loader": parts.loader,
            "loss_fn": parts.loss_fn,
            "train_step": parts.train_step,
        }
        absent = (type(None), tuple)
        # The truth of anything else may be a length that it has not got.
        return {name: part for name, part in named.items() if not isinstance(part, absent) or part}

    # Batches

    def _batches(self) -> Iterator[Any]:
        """Batches of the loader, entered anew at its end, and half way where it has not ended by then."""
        loader, half = self._parts.loader, max(1, self._steps // 2)
        # A training that is resumed enters the loader as the first one did after its first epoch.
        epochs, taken = 1 + checkpoint.begins(self._checkpoint, self.roots, self._probe), 0
        batches = self._enter(half)
        read_once = batches is loader
        if read_once:
            self._notes.assume("loader: an iterator, which can be read only once")
        while True:
            ended = epochs == 1 and taken > 0 and self._probe.steps >= half
            if ended and not read_once:
                self._leave(batches, taken)
            if not ended:
                try:
                    batch = self._probe.hooks.next_batch(batches)
                except StopIteration:
                    ended = True
                else:
                    taken += 1
                    yield batch
                    continue
            if not taken:
                if epochs == 1:
                    raise self._empty()
                return
            # The old iterator goes first, so that its workers end before those of the new one start.
            del batches
            if not self._idle:
                checkpoint.epoch_over(
                    self._checkpoint, self.roots, self._probe, read_once=read_once
                )
            batches = self._enter(half)
            epochs, taken = epochs + 1, 0

    def _enter(self, half: int) -> Iterator[Any]:
        """Begin an epoch: a short one, where that can be, until half of the steps are made."""
        return self._probe.hooks.enter(
            self._parts.loader, most=half if self._probe.steps < half else None
        )

    def _leave(self, batches: Iterator[Any], taken: int) -> None:
        """Take what is left of an epoch, as whole ones do, if it is little; else note that it was left early."""
        most = MOST_BATCHES if self._whole_epochs else self._steps
        if not self._probe.hooks.skip(self._parts.loader, batches, taken=taken, most=most):
            self._notes.left_early = self._probe.steps

    def _empty(self) -> TargetError:
        return TargetError(
            "The loader is empty: its first batch never came.",
            where=describe(self._parts.loader),
            why="the dataset has no samples, fewer than a batch with drop_last=True, or the iterator was used up",
            next_step="let build() return a loader that yields at least one batch",
        )

    # Steps

    def _own_step(self, batch: Any) -> None:
        """Forward, backward, and a step of each optimizer."""
        optimizers = self._get_optimizers()
        if any(_needs_closure(optimizer) for optimizer in optimizers):
            for optimizer in optimizers:
                optimizer.step(lambda: self._closure(batch))
            self._after_step(None)
            return
        loss = self._closure(batch)
        self._step(loss)

    def _closure(self, batch: Any) -> torch.Tensor:
        """Forward and backward, as L-BFGS asks for several times a step."""
        for optimizer in self._get_optimizers():
            self._zero_grad(optimizer)
        loss = self._losses(batch)
        loss.backward()
        return loss

    def _step(self, loss: torch.Tensor | None) -> None:
        before = self._probe.steps
        for optimizer in self._get_optimizers():
            optimizer.step()
        if self._probe.steps == before:  # none of them is torch's
            self._probe.hooks.stepped()
        self._after_step(loss)

    def _after_step(self, loss: torch.Tensor | None) -> None:
        for scheduler in self._parts.schedulers:
            if _needs_closure(scheduler):  # ReduceLROnPlateau wants to know the loss
                scheduler.step(self._probe.losses[-1] if loss is None else loss.item())
            else:
                scheduler.step()

    def _users_step(self, batch: Any) -> None:
        """The user's `train_step`, and what it left undone: the optimizer's step, or the backward too."""
        train_step = self._parts.train_step
        steps, backwards = self._probe.steps, self._probe.backwards
        loss = train_step(self._parts.model, batch)  # type: ignore[misc]
        self._probe.hooks.settle()
        if self._probe.steps > steps:
            self._after_step(loss if isinstance(loss, torch.Tensor) else None)
            return
        if self._probe.backwards == backwards:
            if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
                raise TargetError(
                    f"train_step(model, batch) made no step and returned {_what(loss)}.",
                    why="it must step an optimizer itself, call backward(), or return a loss to call it on",
                )
            loss.backward()
        elif _mentions_step(train_step):
            return  # it accumulates gradients over several batches
        self._step(None)
        for optimizer in self._get_optimizers():
            self._zero_grad(optimizer)

    def _get_optimizers(self) -> tuple[Any, ...]:
        if not self._optimizers:
            trainable = [each for each in self._parameters() if each.requires_grad]
            if not trainable:
                raise TargetError(
                    "The model has no parameter that can be trained.",
                    where=describe(self._parts.model),
                    why="it has no parameters, or requires_grad is False for all of them",
                    next_step="let build() return an optimizer of its own, or a train_step that makes the step",
                )
            self._optimizers = (torch.optim.SGD(trainable, lr=_DEFAULT_LR),)
            self._notes.assume(f"optimizer: SGD, lr {_DEFAULT_LR}")
        return self._optimizers

    def _parameters(self) -> Iterator[nn.Parameter]:
        for module in _modules_of(self._parts.model):
            yield from module.parameters()

    def _zero_grad(self, optimizer: Any) -> None:
        zero_grad = getattr(optimizer, "zero_grad", None)
        if callable(zero_grad):
            zero_grad()
        else:
            for parameter in self._parameters():
                parameter.grad = None


def _modules_of(model: Any) -> list[nn.Module]:
    items = list(model.values()) if isinstance(model, dict) else model
    return [
        each
        for each in (items if isinstance(items, (list, tuple)) else [items])
        if isinstance(each, nn.Module)
    ]


def _device_of(model: Any) -> torch.device:
    with reading("where a model is"):
        for module in _modules_of(model):
            for tensor in (*module.parameters(), *module.buffers()):
                return tensor.device
    return torch.device("cpu")


def _needs_closure(stepper: Any) -> bool:
    """Whether `step` has a required argument: a closure, or a scheduler's metric."""
    # Of the class: a scheduler hides the optimizer's own `step` behind a function with another signature.
    return not takes(type(stepper).step, 1, unknown=True)


def _mentions_step(function: Any) -> bool:
    """Whether a function's own code calls something named `step`."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and "step" in code.co_names


def _what(loss: Any) -> str:
    return "a tensor without a gradient" if isinstance(loss, torch.Tensor) else describe(loss)
