"""What the op-level probe says of inputs and outputs of every sort."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from repro_audit.storage.trace import Phase
from tests.op_traces import parts_at, recorded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.op_traces import Recording


def pair(tmp_path: Path, run: Callable[[Any], Any], one: Any, other: Any) -> list[Recording]:
    """Record one function with two values."""
    found = []
    for number, value in enumerate((one, other)):
        found.append(recorded(tmp_path / str(number), lambda: run(value)))  # noqa: B023 - called at once
    return found


NAN = torch.tensor([0x7FC00000], dtype=torch.int32).view(torch.float32)
OTHER_NAN = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0])),
        (torch.tensor([1.0]), torch.tensor([-1.0])),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.full((4,), 3), torch.full((4,), 7)),
        (torch.ones(2), torch.ones(2, 1)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (NAN, OTHER_NAN),
    ],
)
def test_what_differs_differs_in_before(
    tmp_path: Path, one: torch.Tensor, other: torch.Tensor
) -> None:
    a, b = pair(tmp_path, lambda x: x.sum(), one, other)
    assert a.named("aten::sum")[0].before != b.named("aten::sum")[0].before


def test_equal_nans_are_equal(tmp_path: Path) -> None:
    a, b = pair(tmp_path, lambda x: x.exp(), NAN, NAN.clone())
    assert (a.rows[0].before, a.rows[0].after) == (b.rows[0].before, b.rows[0].after)


@pytest.mark.parametrize(
    ("one", "other"), [(1, 2), (1, 1.0), (1.0, True), (0.0, -0.0), (2**70, 2**70 + 1)]
)
def test_python_numbers_are_inputs(tmp_path: Path, one: Any, other: Any) -> None:
    x = torch.ones(2, dtype=torch.float64)
    a, b = pair(
        tmp_path, lambda value: x.mul(float(value)) if value > 3 else x.mul(value), one, other
    )
    differs = a.rows[0].before != b.rows[0].before
    assert differs is not (one == 2**70), "2**70 and 2**70 + 1 are the same float"


def test_lists_and_options_are_inputs(tmp_path: Path) -> None:
    x = torch.ones(2, 2)
    for name, one, other in (
        ("shape", lambda: x.view(4), lambda: x.view(4, 1)),
        ("dtype", lambda: x.to(torch.int32), lambda: x.to(torch.int64)),
        ("layout", lambda: torch.zeros(2), lambda: torch.zeros(2, dtype=torch.float64)),
    ):
        a, b = pair(tmp_path / name, lambda run: run(), one, other)
        assert a.rows[0].before != b.rows[0].before, name


def test_lists_of_tensors_are_read_in_order(tmp_path: Path) -> None:
    x, y = torch.zeros(2), torch.ones(2)
    a, b = pair(tmp_path, torch.cat, [x, y], [y, x])
    assert a.rows[0].before != b.rows[0].before
    assert a.rows[0].after != b.rows[0].after
    assert a.rows[0].meta == "float32[4]"


def test_several_outputs_are_all_read(tmp_path: Path) -> None:
    (row,) = recorded(tmp_path, lambda: torch.ones(4).reshape(2, 2).sort()).named("aten::sort")
    assert row.meta == "float32[2,2], int64[2,2]"


def test_an_op_in_place_is_read_before_and_after(tmp_path: Path) -> None:
    def run(x: torch.Tensor) -> None:
        x.add_(1)
        x.add_(1)

    made = recorded(tmp_path, lambda: run(torch.zeros(3)))
    first, second = made.named("aten::add_")
    assert first.before != second.before
    assert first.after != second.after
    again = recorded(tmp_path / "again", lambda: run(torch.zeros(3)))
    assert parts_at(made, again) is None


def test_lists_that_an_op_writes_are_its_outputs(tmp_path: Path) -> None:
    def run(step: float) -> None:
        params = [torch.ones(2), torch.ones(3)]
        torch._foreach_add_(params, step)

    a, b = pair(tmp_path, run, 1.0, 2.0)
    row = a.named("aten::_foreach_add_")[0]
    assert row.meta == "float32[2], float32[3]"
    assert row.after != b.named("aten::_foreach_add_")[0].after


@pytest.mark.parametrize("foreach", [False, True])
def test_optimizers_are_seen(tmp_path: Path, foreach: bool) -> None:
    def run() -> None:
        p = nn.Parameter(torch.ones(3))
        optimizer = torch.optim.AdamW([p], foreach=foreach)
        p.grad = torch.ones(3)
        optimizer.step()

    names = {row.name for row in recorded(tmp_path, run).rows}
    assert ("aten::_foreach_addcdiv_" in names) is foreach
    assert ("aten::addcdiv_" in names) is not foreach
    assert not any(name.startswith("profiler::") for name in names)


def test_out_arguments_are_outputs_only(tmp_path: Path) -> None:
    def run(junk: float) -> None:
        torch.add(torch.ones(2), torch.ones(2), out=torch.full((2,), junk))

    a, b = pair(tmp_path, run, 1.0, 2.0)
    (row,), (other,) = a.named("aten::add"), b.named("aten::add")
    assert (row.before, row.after) == (other.before, other.after)
    assert row.meta == "float32[2]"


def test_memory_that_nobody_has_written_is_not_read(tmp_path: Path) -> None:
    def run(junk: float) -> None:
        # Memory of the same size, most likely the same.
        torch.full((1000,), junk)
        x = torch.empty(1000)
        x.fill_(0)
        x.copy_(torch.ones(1000))
        x.exp()

    a, b = pair(tmp_path, run, 1.0, 2.0)
    (row,) = a.named("aten::empty")
    assert row.meta == "float32[1000] (not yet written, not read)"
    rows, others = a.rows, b.rows
    assert [row.name for row in rows[1:]] == [
        "aten::empty",
        "aten::fill_",
        "aten::ones",
        "aten::copy_",
        "aten::exp",
    ]
    assert [(r.before, r.after) for r in rows[1:]] == [(r.before, r.after) for r in others[1:]]


def test_views_are_read_by_their_elements_and_strides(tmp_path: Path) -> None:
    def run(x: torch.Tensor) -> None:
        x.exp()

    base = torch.arange(6.0).reshape(2, 3)
    transposed, copied = base.T, base.T.contiguous()
    a, b = pair(tmp_path / "layout", run, transposed, copied)
    assert a.rows[0].before != b.rows[0].before
    assert a.rows[0].meta == "float32[3,2] by strides 1,3", "exp keeps the layout"
    for name, one, other in (
        ("transposed", transposed, (base + (torch.arange(6).reshape(2, 3) == 5)).T),
        ("expanded", torch.zeros(1).expand(4), torch.ones(1).expand(4)),
        ("with gaps", torch.zeros(4, 4)[:, ::2], torch.eye(4)[:, ::2]),
        (
            "negated",
            torch.zeros(2, dtype=torch.complex64).conj().imag,
            torch.ones(2).mul(1j).conj().imag,
        ),
    ):
        a, b = pair(tmp_path / name, run, one, other)
        assert a.rows[0].before != b.rows[0].before, name
    # What lies between the elements is none of the tensor.
    one, other = torch.zeros(4, 4), torch.zeros(4, 4)
    other[:, 1::2] = 1
    a, b = pair(tmp_path / "between", run, one[:, ::2], other[:, ::2])
    assert a.rows[0].before == b.rows[0].before


# Tensors of every kind


class Tagged(torch.Tensor):
    """A subclass without a dispatch of its own."""


class Doubled(torch.Tensor):
    """A subclass that wraps a tensor and dispatches by hand."""

    wrapped: Any

    @staticmethod
    def __new__(cls: Any, inner: torch.Tensor) -> Doubled:
        made: Doubled = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.wrapped = inner
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # as its users write it
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        plain = [arg.wrapped if isinstance(arg, Doubled) else arg for arg in args]
        return Doubled(func(*plain, **(kwargs or {})))


@pytest.mark.parametrize("make", [lambda x: x.as_subclass(Tagged), Doubled])
def test_subclasses_are_read(tmp_path: Path, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    a, b = pair(tmp_path, lambda x: torch.exp(make(x)), torch.zeros(2), torch.ones(2))
    (row,), (other,) = a.named("aten::exp"), b.named("aten::exp")
    assert row.before != other.before
    assert row.after != other.after
    again = recorded(tmp_path / "again", lambda: torch.exp(make(torch.zeros(2))))
    assert again.named("aten::exp")[0].after == row.after


def test_sparse_tensors_are_read(tmp_path: Path) -> None:
    def run(value: float) -> None:
        indices, values = torch.tensor([[0, 1]]), torch.tensor([1.0, value])
        sparse = torch.sparse_coo_tensor(indices, values, (3,), check_invariants=True)
        sparse.coalesce().mul(2)

    a, b = pair(tmp_path, run, 1.0, 2.0)
    rows, others = a.named("aten::mul"), b.named("aten::mul")
    assert rows[-1].after != others[-1].after
    assert "sparse_coo" in rows[-1].meta


def test_tensors_without_data_are_said_to_be(tmp_path: Path) -> None:
    def run() -> None:
        torch.ones(2, device="meta").exp()
        with FakeTensorMode():
            torch.ones(3).exp()

    rows = recorded(tmp_path, run).named("aten::exp")
    assert rows[0].meta == "float32[2] meta (no data: contents not seen)"
    assert all("no data" in row.meta for row in rows)


def test_a_digest_that_fails_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from repro_audit.probe.detail import operators

    def fail(_value: object) -> tuple[str, bytes]:
        raise NotImplementedError

    monkeypatch.setattr(operators, "token", fail)
    result: list[torch.Tensor] = []
    (row,) = recorded(tmp_path, lambda: result.append(torch.ones(2))).rows
    assert row.meta == "unreadable (NotImplementedError)"
    assert row.before == row.after == bytes(16)
    assert torch.equal(result[0], torch.ones(2))


def test_autocast_shows_its_casts(tmp_path: Path) -> None:
    def run() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2))

    made = recorded(tmp_path, run)
    assert {row.meta for row in made.named("aten::_to_copy")} == {"bfloat16[2,2]"}


def test_functorch_transforms_run(tmp_path: Path) -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        per_sample: torch.Tensor = torch.func.vmap(torch.func.grad(lambda v: v.sin().sum()))(x)
        return per_sample

    results: list[torch.Tensor] = []
    a, b = pair(tmp_path, lambda x: results.append(run(x)), torch.zeros(2, 3), torch.ones(2, 3))
    assert torch.equal(results[1], torch.ones(2, 3).cos())
    assert a.named("aten::cos")[0].before != b.named("aten::cos")[0].before


def test_higher_order_operators_run(tmp_path: Path) -> None:
    from torch._higher_order_ops.out_dtype import out_dtype

    x = torch.ones(2, 2, dtype=torch.int8)
    made = recorded(tmp_path, lambda: out_dtype(torch.ops.aten.mm.default, torch.int32, x, x))
    assert [row.name for row in made.rows]


def test_modes_of_the_programs_own_run_above(tmp_path: Path) -> None:
    class Counts(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.seen += 1
            return func(*args, **(kwargs or {}))

    kind: Any = Counts
    mode = kind()

    def run() -> None:
        with mode:
            torch.ones(2).exp()

    assert [row.name for row in recorded(tmp_path, run).rows] == ["aten::ones", "aten::exp"]
    assert mode.seen == 2


def test_a_mode_that_the_program_left_behind_stays(tmp_path: Path) -> None:
    class Passes(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return func(*args, **(kwargs or {}))

    mode: Any = Passes
    with contextlib.ExitStack() as stack:
        recorded(tmp_path, lambda: stack.enter_context(mode()))
        assert torch._C._len_torch_dispatch_stack() == 1
    assert torch._C._len_torch_dispatch_stack() == 0


def test_rnns_agree_with_themselves(tmp_path: Path) -> None:
    def run(_: int) -> None:
        torch.manual_seed(0)
        net = nn.LSTM(4, 4, dropout=0.5, num_layers=2)
        net(torch.ones(3, 2, 4))[0].sum().backward()

    a, b = pair(tmp_path, run, 0, 0)
    assert [(r.name, r.before, r.after) for r in a.rows] == [
        (r.name, r.before, r.after) for r in b.rows
    ]
    assert any(row.phase is Phase.BACKWARD for row in a.rows)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_tracer_of_the_jit_runs_unseen(tmp_path: Path) -> None:
    results: list[torch.Tensor] = []

    def run() -> None:
        traced: Any = torch.jit.trace(lambda x: x.sin() * 2, torch.ones(2))
        results.append(traced(torch.ones(3)))

    made = recorded(tmp_path, run)
    assert torch.equal(results[0], torch.ones(3).sin() * 2)
    assert [row.meta for row in made.named("aten::sin")] == ["float32[3]"]


def test_lazy_modules_run(tmp_path: Path) -> None:
    def run() -> None:
        nn.Sequential(nn.LazyLinear(3), nn.ReLU())(torch.ones(1, 2)).sum().backward()

    made = recorded(tmp_path, run)
    assert [row.module for row in made.named("aten::addmm")] == ["0"]
