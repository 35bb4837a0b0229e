"""Digests and descriptions of tensors and of everything else that a training hands around.

Two values have the same digest only where they have the same bytes, element by element in logical order: sign, -0.0
and NaN payloads count, strides and devices do not. Dtype and shape are for `describe`; a trace compares both.
Nothing here changes a value, dispatches an operator for an ordinary CPU tensor, or draws random numbers.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xxhash
from torch.nn.parameter import is_lazy

from repro_audit.probe.digest.leaves import Again, leaves, visits
from repro_audit.probe.digest.plain import describe_plain, encode, frame, is_object_array
from repro_audit.torch_internals import tensors as internals

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "BLOCK_BYTES",
    "blocks",
    "dense",
    "describe",
    "digest",
    "leaves",
    "opaque_forms",
    "overwrite",
    "pass_over",
    "reading",
    "unwrapped",
]

BLOCK_BYTES = 1 << 26
"""A tensor that has to be copied (strided, on a device) is copied so many bytes at a time."""

_ORDINARY_TYPES = frozenset((torch.Tensor, torch.nn.Parameter))
_dispatch_keys = internals.DISPATCH_KEYS.get()
_function_modes: Callable[[], int] = internals.FUNCTION_MODES.get()
_no_function_modes = internals.NO_FUNCTION_MODES.get()
_no_transforms = internals.NO_TRANSFORMS.get()
_no_dispatch_modes = internals.NO_DISPATCH_MODES.get()
_is_wrapped: Callable[[torch.Tensor], bool] = internals.IS_WRAPPED.get()
_unwrapped: Callable[[torch.Tensor], torch.Tensor] = internals.UNWRAPPED.get()
_is_fake: Callable[[torch.Tensor], bool] = internals.IS_FAKE.get()
_hash: Callable[[Any], bytes] = xxhash.xxh3_128_digest


def _ordinary_keys() -> frozenset[int]:
    """The dispatch keys of dense CPU tensors that own their bytes.

    One number tells them from sparse, quantized, nested, conjugated, negated, fake and functorch tensors alike, for a
    tenth of what asking one by one costs.
    """
    tensor = torch.empty(0, device="cpu")
    with torch.inference_mode():
        inference = torch.empty(0, device="cpu")
    return frozenset(_dispatch_keys(each).raw_repr() for each in (tensor, inference))


_ORDINARY_KEYS = _ordinary_keys()
_NOTHING = _hash(b"")
BEING_CAPTURED = "a CUDA graph is captured"
"""Why a tensor is not read."""

_ELEMENTS = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}

_buffer_types: dict[int, type[ctypes.Array[ctypes.c_char]]] = {}
_forms: dict[tuple[torch.dtype, torch.Size], str] = {}
_MAX_CACHED = 4096
_opaque_forms: set[str] = set()


class _UnreadableError(Exception):
    """A tensor has no bytes that could be read; the reason is its only argument."""


def digest(value: Any) -> bytes:
    """The xxh3-128 of a value's bytes, 16 bytes long.

    A value without reachable bytes (a meta tensor, an object of an unknown type) has the digest of its form.
    """
    if _function_modes():
        with _no_function_modes():
            return _digest(value)
    return _digest(value)


def _digest(value: Any) -> bytes:
    kind = type(value)
    if kind in _ORDINARY_TYPES and _dispatch_keys(value).raw_repr() in _ORDINARY_KEYS:
        size: int = value.nbytes
        if not size:
            return _NOTHING
        if not value.is_contiguous():
            if size <= BLOCK_BYTES and _has_memory(value):
                return _hash(_strided_view(value).tobytes())
        # A storage that was freed (as FSDP does) leaves its tensors with an address that must not be read.
        elif value.untyped_storage().nbytes() >= size and (address := value.data_ptr()):
            return _hash(_buffer_type(size).from_address(address))
    if isinstance(value, torch.Tensor):
        with plainly():
            return _digest_tensor(value)
    return _digest_plain(value)


def _buffer_type(size: int) -> type[ctypes.Array[ctypes.c_char]]:
    """The type of a C array of so many bytes: a view on memory that costs half of a memoryview."""
    known = _buffer_types.get(size)
    if known is not None:
        return known
    if len(_buffer_types) >= _MAX_CACHED:
        _buffer_types.clear()
    new = _buffer_types[size] = ctypes.c_char * size
    return new


def _strided_view(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """A CPU tensor as NumPy sees it, made by hand: no operator is dispatched, and bfloat16 works too."""
    size = tensor.element_size()
    steps = tensor.stride()
    last = sum((count - 1) * step for count, step in zip(tensor.shape, steps, strict=True))
    memory: Any = _buffer_type((last + 1) * size).from_address(tensor.data_ptr())
    return np.ndarray(
        tensor.shape, _ELEMENTS[size], memory, strides=tuple(step * size for step in steps)
    )


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Run operators with no one looking: no autograd, no modes and no subclass of the user's."""
    with (
        _no_function_modes(),
        torch.no_grad(),
        _no_transforms(),
        _no_dispatch_modes(),
    ):
        yield


def _digest_tensor(tensor: torch.Tensor) -> bytes:
    try:
        parts = _parts(tensor)
    except _UnreadableError as error:
        return _digest_of_form(f"{_form(tensor)} ({error})")
    if parts is not None:
        return _hash(
            frame(item for part in parts for item in (describe(part).encode(), _digest(part)))
        )
    state = xxhash.xxh3_128()
    for block in blocks(tensor):
        state.update(block)
    return state.digest()


def _digest_of_form(form: str) -> bytes:
    _opaque_forms.add(form)
    return _hash(b"?" + form.encode("utf-8", "surrogatepass"))


def pass_over(form: str) -> None:
    """Count what could not even be described among the values whose contents could not be read."""
    _opaque_forms.add(form)


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Look at something of the program's; what fails there is passed over, and never raised into the program."""
    try:
        yield
    except Exception as error:  # whatever other people's classes do
        pass_over(f"{what} ({type(error).__name__})")


def unwrapped(tensor: Any) -> Any:
    """What the transforms of `torch.func` have wrapped: of a tensor that `vmap` holds, the whole."""
    while isinstance(tensor, torch.Tensor) and _is_wrapped(tensor):
        tensor = _unwrapped(tensor)
    return tensor


def opaque_forms() -> tuple[str, ...]:
    """The forms of all values digested so far in this process whose contents could not be read."""
    return tuple(sorted(_opaque_forms))


def _parts(tensor: torch.Tensor) -> list[Any] | None:
    """What a tensor is made of, where that is not one block of elements.

    Raises:
        _UnreadableError: it has no elements at all.
    """
    if _is_wrapped(tensor):
        return [_unwrapped(tensor)]
    if is_lazy(tensor) or _is_fake(tensor) or tensor.device.type == "meta":
        raise _UnreadableError("no data")
    if is_being_captured(tensor):
        raise _UnreadableError(BEING_CAPTURED)
    if (flatten := getattr(tensor, "__tensor_flatten__", None)) is not None:
        return [getattr(tensor, name) for name in flatten()[0]]
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.is_quantized:
        return _quantized_parts(tensor)
    if tensor.layout is not torch.strided:
        return _sparse_parts(tensor)
    return None if _has_memory(tensor) else _wrapped_parts(tensor)


def is_being_captured(tensor: torch.Tensor) -> bool:
    """Whether a CUDA graph that is captured would break if the tensor were read."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def _wrapped_parts(tensor: torch.Tensor) -> list[Any]:
    """The tensors that a subclass without memory of its own keeps as attributes."""
    inner = [value for value in vars(tensor).values() if isinstance(value, torch.Tensor)]
    if not inner:
        raise _UnreadableError("no memory")
    return inner


def _quantized_parts(tensor: torch.Tensor) -> list[Any]:
    scheme = tensor.qscheme()
    if scheme in {torch.per_tensor_affine, torch.per_tensor_symmetric}:
        return [tensor.int_repr(), tensor.q_scale(), tensor.q_zero_point()]
    scales, zero_points = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return [tensor.int_repr(), scales, zero_points, tensor.q_per_channel_axis()]


def _sparse_parts(tensor: torch.Tensor) -> list[Any]:
    """The components as they are stored: an uncoalesced tensor is another one than its coalesced equal."""
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values(), tensor.is_coalesced()]
    if tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in {torch.sparse_csc, torch.sparse_bsc}:
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor.to_dense()]


def _has_memory(tensor: torch.Tensor) -> bool:
    """All of its elements lie in memory that it still has; a wrapper's storage has a size, and no address."""
    if tensor.device.type not in {"cpu", "cuda"} or tensor._is_zerotensor() or not tensor.numel():
        return True
    steps = zip(tensor.size(), tensor.stride(), strict=True)
    last = tensor.storage_offset() + sum((size - 1) * stride for size, stride in steps)
    try:
        storage = tensor.untyped_storage()
        return storage.nbytes() >= (last + 1) * tensor.element_size() and bool(storage.data_ptr())
    except (NotImplementedError, RuntimeError):
        return False


def blocks(tensor: torch.Tensor) -> Iterator[ctypes.Array[ctypes.c_char]]:
    """The bytes of a dense tensor in logical order, block by block; each is good until the next is asked for."""
    if tensor.device.type == "cpu" and tensor.is_contiguous() and not _is_lazy_view(tensor):
        block = tensor
    elif tensor.nbytes <= BLOCK_BYTES:
        block = tensor.detach().cpu().clone() if tensor._is_zerotensor() else tensor.detach().cpu()
        block = block.resolve_conj().resolve_neg().contiguous()
    else:
        rows = max(1, BLOCK_BYTES * tensor.size(0) // tensor.nbytes)
        for start in range(0, tensor.size(0), rows):
            yield from blocks(tensor[start : start + rows] if rows > 1 else tensor[start])
        return
    if block.nbytes:
        yield _buffer_type(block.nbytes).from_address(block.data_ptr())


def _is_lazy_view(tensor: torch.Tensor) -> bool:
    """Its memory holds other bytes than its elements have."""
    return tensor.is_conj() or tensor.is_neg() or tensor._is_zerotensor()


def overwrite(
    tensor: torch.Tensor, dtype: str, shape: tuple[int, ...], data: npt.NDArray[np.uint8]
) -> bool:
    """Put other bytes in the place of a dense tensor's; False where its form is another, or its memory out of reach.

    No operator is dispatched that anybody could see, and autograd's version stays: what it saved is overwritten too.
    """
    if str(tensor.dtype).removeprefix("torch.") != dtype or tuple(tensor.shape) != shape:
        return False
    with plainly():
        try:
            is_dense = _parts(tensor) is None and not _is_lazy_view(tensor)
        except _UnreadableError:
            return False
        shares_elements = (
            any(size > 1 and not step for size, step in zip(shape, tensor.stride(), strict=True))
            if is_dense
            else True
        )
        if shares_elements or tensor.device.type not in {"cpu", "cuda"}:
            return False
        if tensor.device.type == "cuda":
            # `data` has a version counter of its own.
            source = torch.from_numpy(data.copy()).view(tensor.dtype).reshape(shape)
            tensor.data.copy_(source)
        elif tensor.numel():
            elements = data.view(_ELEMENTS[tensor.element_size()])
            _strided_view(tensor)[...] = elements.reshape(shape)
    return True


def dense(tensor: torch.Tensor) -> torch.Tensor | None:
    """A strided tensor with the elements of any tensor, to measure differences with; None where there are none."""
    with plainly():
        try:
            parts = _parts(tensor)
        except _UnreadableError:
            return None
        if parts is None:
            return tensor
        if tensor.is_nested and tensor.layout is torch.strided:
            return torch.cat([part.reshape(-1) for part in parts]) if parts else None
        is_small = (
            tensor.layout is not torch.strided
            and tensor.numel() * tensor.element_size() <= BLOCK_BYTES
        )
        if is_small and not tensor.is_nested:
            return tensor.to_dense()
        # The elements of a sparse tensor come second, those of all others first.
        inner = parts[0] if len(parts) == 1 or tensor.layout is torch.strided else parts[1]
        return dense(inner) if isinstance(inner, torch.Tensor) else None


def _digest_plain(value: Any) -> bytes:
    if type(value) is np.ndarray and value.flags.c_contiguous and value.dtype.kind in "biufc":
        return _hash(value)
    if is_object_array(value):
        return digest(value.ravel().tolist())
    if isinstance(value, (set, frozenset)):
        # A set has no order of its own: that of its iteration hangs on hashes.
        return _hash(b"{" + frame(sorted(describe(item).encode() + digest(item) for item in value)))
    if isinstance(value, Again):
        return _hash(b"@%d" % value.place)
    if isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
        return _hash(str(value).encode())
    data = encode(value)
    return _hash(data) if data is not None else _digest_container(value)


def _digest_container(value: Any) -> bytes:
    """The digest of every value at every place, or of the type's name where nothing can be entered."""
    state = xxhash.xxh3_128()
    for count, visit in enumerate(visits(value)):
        if not count and not visit.entered:
            is_empty = isinstance(value, Sized) and not len(value)
            return _hash(describe(value).encode()) if is_empty else _digest_of_form(describe(value))
        key = visit.path[-1].encode("utf-8", "surrogatepass") if visit.path else b""
        data = b"" if visit.entered else digest(visit.value)
        state.update(frame((b"%d" % len(visit.path), key, describe(visit.value).encode(), data)))
    return state.digest()


def describe(value: Any) -> str:
    """The form of a value: `float32[32,10]`, then what is unusual (device, layout, subclass); or its type's name."""
    if not isinstance(value, torch.Tensor):
        return describe_plain(value)
    is_ordinary = type(value) in _ORDINARY_TYPES and not _function_modes()
    if not is_ordinary or _dispatch_keys(value).raw_repr() not in _ORDINARY_KEYS:
        with plainly():
            return _form(value)
    key = (value.dtype, value.shape)
    known = _forms.get(key)
    if known is not None:
        return known
    if len(_forms) >= _MAX_CACHED:
        _forms.clear()
    new = _forms[key] = _form(value)
    return new


def _form(tensor: torch.Tensor) -> str:
    words = [f"{str(tensor.dtype).removeprefix('torch.')}[{_shape(tensor)}]"]
    if tensor.device.type != "cpu":
        words.append(str(tensor.device))
    if tensor.layout is not torch.strided:
        words.append(str(tensor.layout).removeprefix("torch."))
    if type(tensor) not in _ORDINARY_TYPES:
        words.append(type(tensor).__name__)
    return " ".join(words)


def _shape(tensor: torch.Tensor) -> str:
    """The sizes; a star for one that differs from row to row, whose symbol is numbered as they come."""
    if is_lazy(tensor):
        return "?"
    if tensor.is_nested and tensor.layout is torch.strided:
        return ",".join((str(tensor.size(0)), *"*" * (tensor.dim() - 1)))
    return ",".join(str(size) if type(size) is int else "*" for size in tensor.shape)
