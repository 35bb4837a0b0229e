"""Calling a model on a batch, and the loss that is meant where the program names none."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from repro_audit.errors import TargetError
from repro_audit.torch_internals.compiler import ORIGINAL_MODULE
from repro_audit.trial.driver.bundle import describe, takes
from repro_audit.trial.driver.notes import Notes

TARGET_NAMES = ("labels", "label", "targets", "target", "y")
_NO_LOSS = (
    "let build() return a loss_fn(output, target) as the third item, or a train_step(model, batch)"
)
_MANY = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a batch goes into a model."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    target: Any = None
    input: Any = None
    """What the model sees, for a loss that compares with it."""


class Losses:
    """Loss of a model on a batch: `loss_fn`'s, the model's own, or the usual one for the target's type."""

    def __init__(
        self, model: Any, loss_fn: Callable[..., Any] | None, device: torch.device, notes: Notes
    ) -> None:
        self._model = model
        self._loss_fn = loss_fn
        self._notes = notes
        self._takes = Takes.read(model) if callable(model) else Takes()
        if isinstance(loss_fn, nn.Module) and device.type != "cpu":
            loss_fn.to(device)

    def __call__(self, batch: Any) -> torch.Tensor:
        """Forward and loss.

        Raises:
            TargetError: no loss follows from the batch and the output, or the loss can't be backpropagated.
        """
        call = self._call(batch)
        output = self._model(*call.args, **call.kwargs)
        loss = self._loss(output, call)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            what = (
                f"a tensor of shape {tuple(loss.shape)}"
                if isinstance(loss, torch.Tensor)
                else describe(loss)
            )
            raise TargetError(
                f"The loss is {what}.",
                why="it must be a tensor with one element",
                next_step=_NO_LOSS,
            )
        if not loss.requires_grad:
            raise TargetError(
                "The loss has no gradient.",
                why="it does not depend on a parameter that requires one, or was detached",
                next_step=_NO_LOSS,
            )
        return loss

    # Into the model

    def _call(self, batch: Any) -> Call:
        if isinstance(batch, Mapping):
            return self._call_mapping(batch)
        if _is_sequence(batch):
            if not batch:
                raise TargetError(
                    "The loader yielded an empty batch.", next_step="let it yield (input, target)"
                )
            return (
                self._call_sequence(tuple(batch))
                if len(batch) > 1
                else self._with_input(batch[0], None)
            )
        target = next(
            (found for name in TARGET_NAMES if (found := getattr(batch, name, None)) is not None),
            None,
        )
        return self._with_input(batch, None if isinstance(batch, torch.Tensor) else target)

    def _call_mapping(self, batch: Mapping[str, Any]) -> Call:
        name = next((name for name in TARGET_NAMES if name in batch), None)
        target = None if name is None else batch[name]
        if self._takes.keywords(batch):
            return Call(kwargs=batch, target=target)
        inputs = {key: value for key, value in batch.items() if key != name}
        if self._takes.keywords(inputs):
            return Call(kwargs=inputs, target=target)
        if len(inputs) == 1:
            return self._with_input(next(iter(inputs.values())), target)
        known = {key: value for key, value in inputs.items() if key in self._takes.names}
        if known and self._takes.required <= set(known):
            self._notes.assume(f"batch: the model is given {', '.join(known)} only")
            return Call(kwargs=known, target=target)
        return Call(args=(batch,), target=target)

    def _call_sequence(self, batch: tuple[Any, ...]) -> Call:
        *inputs, target = batch
        nested = len(inputs) == 1 and self._spreads(inputs[0])
        if len(self._takes.required) == len(batch) and not nested:
            return Call(args=batch, target=target)
        if len(inputs) > self._takes.most:
            count = self._takes.most
            self._notes.assume(
                f"batch: {count} input{'s' * (count > 1)}, then the target; the rest is left out"
            )
            inputs, target = list(batch[:count]), batch[count]
        if len(inputs) == 1:
            return self._with_input(inputs[0], target)
        return Call(args=tuple(inputs), target=target, **self._own(target))

    def _with_input(self, value: Any, target: Any) -> Call:
        own = self._own(target)
        if isinstance(value, Mapping) and self._takes.keywords(value):
            return Call(kwargs={**value, **own.get("kwargs", {})}, target=target)
        if self._spreads(value):
            return Call(args=tuple(value), target=target, **own)
        return Call(args=(value,), target=target, input=value, **own)

    def _spreads(self, value: Any) -> bool:
        """Whether one input is several for the model."""
        if isinstance(value, Mapping):
            return self._takes.keywords(value)
        return (
            _is_sequence(value)
            and 1 < len(value) <= self._takes.most
            and 1 < len(self._takes.required) <= len(value)
        )

    def _own(self, target: Any) -> dict[str, Any]:
        """The target as a keyword, for a model that computes its own loss from one."""
        if self._loss_fn is not None or target is None:
            return {}
        name = next(
            (name for name in TARGET_NAMES if name in self._takes.names - self._takes.required),
            None,
        )
        return {"kwargs": {name: target}} if name else {}

    # Out of the model

    def _loss(self, output: Any, call: Call) -> Any:
        if self._loss_fn is not None:
            return self._given(self._loss_fn, output, call)
        own, where = _own_loss(output)
        if own is not None:
            self._notes.assume(f"loss: the model's own ({where})")
            return own
        return self._default(output, call)

    def _given(self, loss_fn: Callable[..., Any], output: Any, call: Call) -> Any:
        owner = loss_fn if inspect.isroutine(loss_fn) else type(loss_fn)
        if str(getattr(owner, "__module__", "")).startswith("torch.nn"):
            output = main_tensor(output)  # torch's losses know nothing of model outputs
        if call.target is not None:
            return (
                loss_fn(output, call.target) if takes(loss_fn, 2, unknown=True) else loss_fn(output)
            )
        if takes(loss_fn, 1):
            return loss_fn(output)
        self._notes.assume("loss: loss_fn(output, input), as the batch has no target")
        return loss_fn(output, call.input if call.input is not None else call.kwargs or call.args)

    def _default(self, output: Any, call: Call) -> torch.Tensor:
        """Cross-entropy for integer classes, mean squared error for the rest."""
        result, target = main_tensor(output), call.target
        if target is None:
            if not _same_shape(result, call.input):
                raise self._none_fits(result, "the batch has no target")
            self._notes.assume(
                "loss: mean squared error against the input, as the batch has no target"
            )
            target = call.input
        elif isinstance(result, torch.Tensor) and isinstance(target, torch.Tensor):
            loss = _cross_entropy(result, target)
            if loss is not None:
                self._notes.assume("loss: cross-entropy (integer class targets)")
                return loss
            self._notes.assume("loss: mean squared error")
        if not isinstance(result, torch.Tensor) or not isinstance(target, torch.Tensor):
            raise self._none_fits(result, f"the target is {describe(target)}")
        if result.shape != target.shape and result.numel() != target.numel():
            raise self._none_fits(result, f"the target has the shape {tuple(target.shape)}")
        return functional.mse_loss(result, target.to(result.dtype).reshape(result.shape))

    def _none_fits(self, output: Any, why: str) -> TargetError:
        what = (
            f"has the shape {tuple(output.shape)}"
            if isinstance(output, torch.Tensor)
            else f"is {describe(output)}"
        )
        return TargetError(
            f"No default loss fits: the model's output {what}, and {why}.", next_step=_NO_LOSS
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Takes:
    """What a model's `forward` accepts."""

    names: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    most: int = _MANY
    """Positional arguments."""
    any_keyword: bool = False

    @classmethod
    def read(cls, model: Any) -> Takes:
        """From the signature; of a wrapped model, from what it wraps."""
        while isinstance(
            inner := getattr(model, ORIGINAL_MODULE.name, None) or _parallel(model), nn.Module
        ):
            model = inner
        try:
            parameters = inspect.signature(
                model.forward if isinstance(model, nn.Module) else model
            ).parameters.values()
        except (TypeError, ValueError):
            return cls(any_keyword=True)
        kinds = {parameter.kind for parameter in parameters}
        positional = [
            each
            for each in parameters
            if each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}
        ]
        named = [
            each
            for each in parameters
            if each.kind in {each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD}
        ]
        return cls(
            names=frozenset(each.name for each in named),
            required=frozenset(
                each.name for each in (*positional, *named) if each.default is each.empty
            ),
            most=_MANY if inspect.Parameter.VAR_POSITIONAL in kinds else len(positional),
            any_keyword=inspect.Parameter.VAR_KEYWORD in kinds,
        )

    def keywords(self, batch: Mapping[Any, Any]) -> bool:
        """Whether a mapping can be passed as keywords."""
        if not batch or not all(isinstance(key, str) for key in batch):
            return False
        return self.required <= set(batch) and (self.any_keyword or set(batch) <= self.names)


def _parallel(model: Any) -> nn.Module | None:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return model.module if isinstance(model, wrappers) else None


def _is_sequence(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and not isinstance(value, nn.utils.rnn.PackedSequence)


def _own_loss(output: Any) -> tuple[Any, str]:
    """A loss that the model computed itself, and where it was found."""
    if isinstance(output, torch.Tensor):
        scalar = output.dim() == 0 and output.is_floating_point()
        return (output, "a scalar output") if scalar else (None, "")
    if isinstance(output, Mapping):
        return output.get("loss"), "output['loss']" if type(output) is dict else "output.loss"
    if isinstance(output, (tuple, list)) and not hasattr(output, "loss"):
        scalars = [
            each
            for each in output
            if isinstance(each, torch.Tensor) and not each.dim() and each.requires_grad
        ]
        return (scalars[0], "the scalar in its output") if len(scalars) == 1 else (None, "")
    loss = getattr(output, "loss", None)
    return (loss if isinstance(loss, torch.Tensor) else None), "output.loss"


def main_tensor(output: Any) -> Any:
    """The predictions in a model's output: itself, its logits, or its first tensor of floating point."""
    if isinstance(output, torch.Tensor):
        return output
    logits = (
        output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    )
    if isinstance(logits, torch.Tensor):
        return logits
    items = (
        output.values()
        if isinstance(output, Mapping)
        else output
        if isinstance(output, (tuple, list))
        else ()
    )
    tensors = [
        each for each in items if isinstance(each, torch.Tensor) and each.is_floating_point()
    ]
    return tensors[0] if tensors else output


def _same_shape(output: Any, value: Any) -> bool:
    both = isinstance(output, torch.Tensor) and isinstance(value, torch.Tensor)
    return both and output.shape == value.shape and value.is_floating_point()


def _cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor | None:
    """Cross-entropy where the target holds classes of the output's: beside the batch, or last as in language models."""
    if target.is_floating_point() or target.is_complex() or target.dtype is torch.bool:
        return None
    if target.dim() == output.dim() and target.shape[-1:] == (1,) and output.shape[-1] > 1:
        target = target.squeeze(-1)
    if output.dim() < 2 or not output.is_floating_point():  # noqa: PLR2004 - batch and classes
        return None
    if (*output.shape[:1], *output.shape[2:]) != target.shape:
        if output.shape[:-1] != target.shape:
            return None
        output, target = output.flatten(0, -2), target.flatten()
    return functional.cross_entropy(output, target.long())


def on_device(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors on the model's device; the same object where that is the CPU."""
    if device.type == "cpu":
        return batch
    if isinstance(batch, torch.Tensor) or callable(getattr(batch, "to", None)):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: on_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        items = [on_device(value, device) for value in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        names = [each.name for each in dataclasses.fields(batch) if each.init]
        return dataclasses.replace(
            batch, **{name: on_device(getattr(batch, name), device) for name in names}
        )
    return batch
