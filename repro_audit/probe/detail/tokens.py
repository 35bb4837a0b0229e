"""The form and the digest of a tensor at once, as the op-level probe needs them some hundred times a step.

A transposed or expanded tensor is not copied into logical order: its memory is digested as it lies, and its form says
by which strides. So two of them are equal where their memory and their strides are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from repro_audit.probe.digest.tensors import (
    _NOTHING,
    _ORDINARY_KEYS,
    _buffer_type,
    _dispatch_keys,
    _function_modes,
    _hash,
    describe,
    digest,
)

ORDINARY: Final = frozenset((torch.Tensor, torch.nn.Parameter))
_MOST: Final = 4096

_forms: dict[tuple[torch.dtype, torch.Size], str] = {}
_layouts: dict[tuple[torch.dtype, torch.Size, tuple[int, ...]], tuple[str, int]] = {}


def token(value: Any) -> tuple[str, bytes]:
    """The form of a value, and a digest that is equal only for values of this form with the same bytes."""
    if (
        type(value) in ORDINARY
        and not _function_modes()
        and _dispatch_keys(value).raw_repr() in _ORDINARY_KEYS
    ):
        dtype, shape = value.dtype, value.shape
        form = _forms.get((dtype, shape))
        if form is None:
            form = _new_form(value)
        size = value.nbytes
        if not size:
            return form, _NOTHING
        storage = value.untyped_storage().nbytes()
        if value.is_contiguous():
            if storage >= size and (address := value.data_ptr()):
                return form, _hash(_buffer_type(size).from_address(address))
        else:
            strides = value.stride()
            layout = _layouts.get((dtype, shape, strides))
            if layout is None:
                layout = _new_layout(value, strides)
            suffix, size = layout
            start = value.storage_offset() * value.element_size()
            if size and storage >= start + size and (address := value.data_ptr()):
                return form + suffix, _hash(_buffer_type(size).from_address(address))
    return describe(value), digest(value)


def _new_form(tensor: torch.Tensor) -> str:
    if len(_forms) >= _MOST:
        _forms.clear()
    form = _forms[tensor.dtype, tensor.shape] = describe(tensor)
    return form


def _new_layout(tensor: torch.Tensor, strides: tuple[int, ...]) -> tuple[str, int]:
    """How the form goes on, and how many bytes hold all elements; 0 where other bytes lie between them."""
    if len(_layouts) >= _MOST:
        _layouts.clear()
    elements = _without_gaps(tensor.shape, strides)
    suffix = f" by strides {','.join(map(str, strides))}"
    layout = (suffix, elements * tensor.element_size())
    _layouts[tensor.dtype, tensor.shape, strides] = layout
    return layout


def _without_gaps(shape: Sequence[int], strides: Sequence[int]) -> int:
    """How many elements lie in memory, if they lie next to each other in some order of the dimensions; else 0."""
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size == 1 or stride == 0:  # an expanded dimension repeats the others
            continue
        if stride != expected:
            return 0
        expected *= size
    return expected
