"""Digests are those of the bytes, for every kind of tensor and value, and taking them leaves no trace."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import xxhash
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from repro_audit.probe.digest import tensors
from repro_audit.probe.digest.plain import frame
from repro_audit.probe.digest.tensors import blocks, dense, describe, digest, opaque_forms

if TYPE_CHECKING:
    from collections.abc import Callable

# Each of these is said once a process, when the first such tensor is made.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in (
        "ComplexHalf support is experimental",
        "Sparse .* tensor support is in beta",
        "Sparse invariant checks are implicitly disabled",
        "The PyTorch API of nested tensors is in prototype",
        "torch.quantize_per",
        ".*quantize.* is deprecated",
        ".*quantized.* is deprecated",
    )
]

FLOAT8 = [
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz),
    *(torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
]
DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, *FLOAT8),
    *(torch.complex32, torch.complex64, torch.complex128, torch.bool),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]


def of_bytes(data: bytes) -> bytes:
    return xxhash.xxh3_128_digest(data)


def raw(tensor: torch.Tensor) -> bytes:
    """The bytes in logical order, the plain way."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def bits(dtype: torch.dtype, count: int = 24) -> torch.Tensor:
    size = torch.empty(0, dtype=dtype).element_size()
    data = np.random.default_rng(0).integers(0, 2 if dtype is torch.bool else 256, count * size)
    return torch.from_numpy(data.astype(np.uint8)).view(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided", "expanded", "empty"])
def test_a_digest_is_that_of_the_bytes_in_logical_order(dtype: torch.dtype, layout: str) -> None:
    tensor = bits(dtype).reshape(2, 3, 4)
    tensor = {
        "contiguous": tensor,
        "transposed": tensor.permute(2, 0, 1),
        "strided": tensor[:, ::2, 1::2],
        "expanded": tensor[:, :1].expand(2, 5, 4),
        "empty": tensor[:0],
    }[layout]
    assert digest(tensor) == of_bytes(raw(tensor))
    name = str(dtype).removeprefix("torch.")
    assert describe(tensor) == f"{name}[{','.join(map(str, tensor.shape))}]"


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.bool], ids=str
)
def test_blocks_are_those_bytes_too(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "BLOCK_BYTES", 16)
    tensor = bits(dtype, 120).reshape(5, 4, 6)
    for each in (tensor, tensor.permute(2, 1, 0), tensor[:, :1].expand(5, 3, 6), tensor[0, 0, 0]):
        assert b"".join(bytes(block) for block in blocks(each)) == raw(each)
        assert digest(each) == of_bytes(raw(each))


def test_an_expanded_tensor_is_never_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "BLOCK_BYTES", 1 << 16)
    huge = torch.ones(1, 1).expand(1 << 12, 1 << 11)
    assert max(len(bytes(block)) for block in blocks(huge)) <= 1 << 16
    assert digest(huge) == of_bytes(raw(huge))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])),
        (torch.tensor([1.0]), torch.tensor([-1.0])),
        (torch.tensor([3.0] * 4), torch.tensor([7.0] * 4)),
        (
            torch.tensor([0x7FC00000], dtype=torch.int32).view(torch.float32),
            torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32),
        ),
    ],
    ids=["signed zero", "permuted", "sign", "sevens", "NaN payload"],
)
def test_what_other_hashes_miss_is_seen(a: torch.Tensor, b: torch.Tensor) -> None:
    assert digest(a) != digest(b)
    assert digest(a) == digest(a.clone())


def test_lazy_views_have_the_digest_of_their_elements() -> None:
    z = torch.tensor([1 + 2j, 3 - 0j])
    for lazy in (z.conj(), z.conj().imag, torch._efficientzerotensor((3,))):
        plain = lazy.clone().resolve_conj().resolve_neg()
        assert digest(lazy) == of_bytes(plain.numpy().tobytes())
        assert describe(lazy) == describe(plain)
    assert digest(z.conj()) != digest(z)


class Plain(torch.Tensor):
    """A subclass with the base class's memory."""


class Wrapper(torch.Tensor):
    """A subclass that keeps another tensor, and none of its own memory."""

    kept: torch.Tensor

    @staticmethod
    def __new__(cls: type[Wrapper], kept: torch.Tensor) -> Wrapper:
        self: Wrapper = torch.Tensor._make_wrapper_subclass(cls, kept.shape, dtype=kept.dtype)
        self.kept = kept
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        message = f"a probe must not compute: {func}"
        raise AssertionError(message)


class Flattened(Wrapper):
    """A wrapper that says what it is made of."""

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["kept"], None


SPECIAL: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "parameter": torch.nn.Parameter,
    "buffer": torch.nn.Buffer,
    "requires grad": lambda base: (base.clone().requires_grad_() * 1).t(),
    "coo": torch.Tensor.to_sparse,
    "uncoalesced": lambda base: torch.sparse_coo_tensor(torch.tensor([[1, 1]]), base[0, :2], (3,)),
    "csr": torch.Tensor.to_sparse_csr,
    "csc": torch.Tensor.to_sparse_csc,
    "bsr": lambda base: base.to_sparse_bsr((1, 2)),
    "bsc": lambda base: base.to_sparse_bsc((1, 2)),
    "mkldnn": torch.Tensor.to_mkldnn,
    "nested": lambda base: torch.nested.nested_tensor([base[0], base[1, :2]]),
    "jagged": lambda base: torch.nested.nested_tensor([base[0], base[1, :2]], layout=torch.jagged),
    "plain subclass": lambda base: base.as_subclass(Plain),
    "wrapper": Wrapper,
    "flattened": Flattened,
    "channels last": lambda base: base.reshape(1, 2, 2, 3).to(memory_format=torch.channels_last),
    "shared": torch.Tensor.share_memory_,
}
"""Unusual tensors, made of an ordinary one."""


def special(name: str, offset: float = 0) -> torch.Tensor:
    return SPECIAL[name](torch.arange(12.0).reshape(3, 4) + offset)


@pytest.mark.parametrize("name", SPECIAL)
def test_unusual_tensors_have_digests_of_their_contents(name: str) -> None:
    before = set(opaque_forms())
    tensor, same, other = special(name), special(name), special(name, 1)
    assert digest(tensor) == digest(same) != digest(other)
    assert describe(tensor) == describe(same) == describe(other)
    assert describe(tensor).startswith("float32[")
    assert set(opaque_forms()) == before


def test_quantized_tensors_are_their_integers_and_scales() -> None:
    base = torch.arange(6.0).reshape(2, 3)
    kinds: list[Callable[[float, int], torch.Tensor]] = [
        lambda scale, zero: torch.quantize_per_tensor(base, scale, zero, torch.qint8),
        lambda scale, zero: torch.quantize_per_channel(
            base, torch.tensor([scale, 1.0]), torch.tensor([zero, 0]), 0, torch.quint8
        ),
    ]
    for make in kinds:
        assert digest(make(0.5, 0)) == digest(make(0.5, 0))
        assert len({digest(make(0.5, 0)), digest(make(0.25, 0)), digest(make(0.5, 1))}) == 3


def test_a_form_says_what_is_unusual() -> None:
    assert describe(special("coo")) == "float32[3,4] sparse_coo"
    assert describe(special("nested")) == "float32[2,*]"
    assert describe(special("jagged")) == "float32[2,*] jagged NestedTensor"
    assert describe(special("plain subclass")) == "float32[3,4] Plain"
    assert describe(torch.empty(2, device="meta")) == "float32[2] meta"
    assert describe(torch.tensor(1)) == "int64[]"


def test_coalescing_counts() -> None:
    tensor = special("uncoalesced")
    assert digest(tensor) != digest(tensor.coalesce())
    flagged = special("uncoalesced")._coalesced_(True)
    assert digest(tensor) != digest(flagged)


def freed() -> torch.Tensor:
    tensor = torch.ones(64)[8:]
    tensor.untyped_storage().resize_(0)
    return tensor


def freed_and_strided() -> torch.Tensor:
    tensor = torch.ones(64, 2)[8:].t()
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(3, device="meta"),
        torch.nn.parameter.UninitializedParameter,
        freed,
        freed_and_strided,
        lambda: FakeTensorMode().from_tensor(torch.ones(2)),
    ],
    ids=["meta", "lazy", "freed", "freed strided", "fake"],
)
def test_what_has_no_bytes_is_known_by_its_form_and_listed(
    make: Callable[[], torch.Tensor],
) -> None:
    assert digest(make()) == digest(make())
    assert any(form.startswith(describe(make())) for form in opaque_forms())
    assert dense(make()) is None


def test_inside_functorch_transforms_and_modes() -> None:
    seen: list[bytes] = []

    def square(x: torch.Tensor) -> torch.Tensor:
        seen.append(digest(x))
        describe(x)
        return (x * x).sum()

    base = torch.arange(6.0).reshape(2, 3)
    torch.func.grad(square)(base)
    torch.vmap(square)(base)
    assert len(seen) == 2
    inner = of_bytes(raw(base))
    once = of_bytes(frame((b"float32[2,3]", inner)))
    assert seen[:2] == [once, once]
    with torch.inference_mode():
        assert digest(base * 1) == inner
        assert digest((base * 1).t()) == digest(base.t())


def test_a_lazy_view_inside_functorch() -> None:
    seen: list[bytes] = []

    def note(x: torch.Tensor) -> torch.Tensor:
        seen.append(digest(x))
        return x.abs().sum()

    lazy = torch.tensor([[1 + 2j], [3 - 0j]]).conj()
    torch.vmap(note)(lazy)
    torch.func.grad(note)(lazy)
    assert seen == [of_bytes(frame((b"complex64[2,1]", digest(lazy))))] * 2


class Watching(TorchDispatchMode):
    """Notes every operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[object, ...] = (), kwargs: Any = None
    ) -> object:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    """Notes every function and attribute of PyTorch that is used."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(
        self, func: Any, types: object, args: tuple[object, ...] = (), kwargs: Any = None
    ) -> object:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*SPECIAL, "conj", "bfloat16", "scalar"])
def test_a_digest_changes_nothing_and_shows_in_no_mode(name: str) -> None:
    extra = {
        "conj": torch.ones(2, dtype=torch.complex64).conj(),
        "bfloat16": torch.ones(3).bfloat16(),
        "scalar": torch.tensor(2.0),
    }
    tensor = extra[name] if name in extra else special(name)
    version, grad_fn, flags = tensor._version, tensor.grad_fn, tensor.requires_grad
    states = random.getstate(), torch.get_rng_state().tolist()
    deterministic = torch.are_deterministic_algorithms_enabled()
    expected = describe(tensor), digest(tensor)
    with Calls() as calls, Watching() as mode:
        assert (describe(tensor), digest(tensor)) == expected
    assert mode.seen == calls.seen == []
    assert (tensor._version, tensor.grad_fn, tensor.requires_grad) == (version, grad_fn, flags)
    assert (random.getstate(), torch.get_rng_state().tolist()) == states
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.is_grad_enabled()
    assert torch._C._len_torch_dispatch_stack() == 0


def test_the_modes_see_operators() -> None:
    with Calls() as calls, Watching() as mode:
        torch.ones(2).t()
    assert mode.seen
    assert calls.seen


def test_an_error_of_the_machine_is_no_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        message = "out of memory"
        raise RuntimeError(message)

    monkeypatch.setattr(tensors, "blocks", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        digest(torch.ones(2).as_subclass(Plain))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_tensors_have_the_digest_of_their_elements() -> None:
    for tensor in (torch.arange(6.0).reshape(2, 3), torch.ones(3).bfloat16(), torch.zeros(0)):
        device = tensor.cuda()
        assert digest(device) == digest(tensor)
        assert digest(device.t() if device.dim() == 2 else device) == digest(
            tensor.t() if tensor.dim() == 2 else tensor
        )
        assert describe(device) == f"{describe(tensor)} cuda:0"
