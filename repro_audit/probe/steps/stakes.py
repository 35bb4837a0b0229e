"""What shows that a training has something at stake: losses that are numbers, gradients, a learning rate.

That parameters change is told by the trace.
"""

from __future__ import annotations

import weakref
from math import isfinite
from typing import Any

import torch

from repro_audit.probe import Stakes
from repro_audit.probe.digest.tensors import is_being_captured, plainly

BLOCK_ELEMENTS = 1 << 22
"""So many of a gradient are looked at at a time."""


class Watch:
    """Fills in a `Stakes`. What was seen once is looked for no more: a training that trains costs one look."""

    def __init__(self, stakes: Stakes) -> None:
        self._stakes = stakes
        self._finite: bool | None = None
        self._scaled: weakref.ref[torch.Tensor] | None = None
        self._unscaled: float | None = None

    def scaled(self, loss: torch.Tensor, scaled: torch.Tensor) -> None:
        """A gradient scaler has multiplied a loss."""
        self._scaled, self._unscaled = weakref.ref(scaled), _as_float(loss)

    def loss(self, loss: torch.Tensor) -> float:
        """The value of a loss that is backpropagated, as it was before a scaler had it; NaN where it is no number."""
        is_scaled = self._scaled is not None and self._scaled() is loss
        value = self._unscaled if is_scaled else _as_float(loss)
        if value is None:
            return float("nan")
        self._finite = isfinite(value) or bool(self._finite)
        return value

    def entering(self, optimizer: torch.optim.Optimizer) -> None:
        """Look for gradients before a step, which may set them to zero."""
        if not self._stakes.gradients:
            for group in optimizer.param_groups:
                self._look_at(group["params"])

    def stepped(self, optimizer: torch.optim.Optimizer, *, holds: bool) -> None:
        """Look again after it, since it may have computed them itself.

        Args:
            optimizer: of torch's.
            holds: it holds a parameter of a module.
        """
        self.entering(optimizer)
        stakes = self._stakes
        stakes.holds = holds or bool(stakes.holds)
        stakes.rate = bool(stakes.rate) or any(
            _is_not_zero(group.get("lr", 1.0)) for group in optimizer.param_groups
        )

    def _look_at(self, parameters: Any) -> None:
        for parameter in parameters:
            grad = getattr(parameter, "grad", None)
            if grad is not None:
                self._stakes.gradients = _is_not_zero(grad)
            if self._stakes.gradients:
                return

    def step_over(self) -> None:
        """Note whether a loss of the step was finite."""
        self._stakes.finite.append(self._finite)
        self._finite = None


def _as_float(loss: torch.Tensor) -> float | None:
    """A loss as a number, where it is one."""
    if is_being_captured(loss):
        return None
    try:
        return float(loss.item())
    except (RuntimeError, TypeError, ValueError):  # several elements, complex, no data
        return None


def _is_not_zero(value: Any) -> bool:
    """Whether a number or any element is; what can't be read counts as such."""
    if isinstance(value, torch.Tensor) and is_being_captured(value):
        return True
    try:
        with plainly():
            if isinstance(value, torch.Tensor) and value.numel() > BLOCK_ELEMENTS:
                return any(bool(part.any()) for part in _parts(value))
            return bool(value.any()) if hasattr(value, "any") else bool(value)
    except Exception:  # sparse, nested, distributed: nothing is claimed of them
        return True


def _parts(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Views of a large tensor: `any` of the whole would take a quarter of its memory."""
    whole = tensor.view(-1) if tensor.is_contiguous() else tensor
    rows = BLOCK_ELEMENTS * len(whole) // whole.numel()
    return torch.split(whole, max(rows, 1))
