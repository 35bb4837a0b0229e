"""The op-level probe: which line, which module, what it read and what it left."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from repro_audit.probe.detail import ops
from repro_audit.probe.files import is_users
from repro_audit.storage.events import Kind
from repro_audit.storage.trace import Phase
from tests.op_traces import line_of, parts_at, recorded, recording

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from repro_audit.storage.events import Event
    from tests.op_traces import Recording


def place(row: Event) -> tuple[int, str]:
    """Line and function of a row, in this file."""
    assert row.site is not None
    assert row.site.file == __file__
    return row.site.line, row.site.function


def lines(rows: list[Event], phase: Phase) -> dict[str, set[int]]:
    """The lines of this file at which each op ran in a phase."""
    found: dict[str, set[int]] = {}
    for row in rows:
        if row.phase is phase:
            found.setdefault(row.name, set()).add(place(row)[0])
    return found


def at(mark: str) -> int:
    return line_of(mark, __file__)


def test_files_of_these_tests_are_the_programs_own_and_the_package_is_not() -> None:
    assert is_users(__file__)
    assert not is_users(ops.__file__)
    assert not is_users(torch.__file__)


def test_a_row_says_what_ran_where(tmp_path: Path) -> None:
    x = torch.ones(2, 3)

    def run() -> None:
        torch.mm(x, x.T)  # mark: mm

    made = recorded(tmp_path, run)
    (row,) = made.named("aten::mm")
    assert row.kind is Kind.OP
    assert row.phase is Phase.FORWARD
    assert place(row) == (at("mark: mm"), "run")
    assert row.meta == "float32[2,2]"
    assert row.module == ""


def test_step_and_phase_are_the_clocks(tmp_path: Path) -> None:
    with recording(tmp_path) as made:
        made.clock.step, made.clock.phase = 7, int(Phase.DATA)
        torch.ones(1)
    assert [(row.step, row.phase) for row in made.rows] == [(7, Phase.DATA)]


def test_nothing_is_written_while_inactive(tmp_path: Path) -> None:
    with recording(tmp_path, active=False) as made:
        torch.ones(1)
        made.ops.active = True
        torch.zeros(1)
        made.ops.active = False
        torch.ones(1)
    assert [row.name for row in made.rows] == ["aten::zeros"]


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    kinds = (nn.Module, torch.optim.Optimizer, torch.utils.data.DataLoader)
    before = [kind.__init__ for kind in kinds], torch.compile
    recorded(tmp_path, lambda: None)
    assert ([kind.__init__ for kind in kinds], torch.compile) == before
    assert torch._C._len_torch_dispatch_stack() == 0


def test_another_thread_is_not_observed(tmp_path: Path) -> None:
    with recording(tmp_path) as made:
        thread = threading.Thread(target=lambda: nn.Linear(2, 2)(torch.ones(2)))
        thread.start()
        thread.join()
    assert made.rows == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_is_not_observed_and_leaves_the_mode(tmp_path: Path) -> None:
    with recording(tmp_path) as made:
        child = os.fork()
        if not child:
            torch.ones(1)
            os._exit(0 if not torch._C._len_torch_dispatch_stack() and not made.ops.active else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert made.ops.active
        torch.zeros(1)
    assert [row.name for row in made.rows] == ["aten::zeros"]


def test_exceptions_pass_and_leave_no_row(tmp_path: Path) -> None:
    def run() -> None:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            torch.mm(torch.ones(2, 3), torch.ones(2, 3))

    assert recorded(tmp_path, run).named("aten::mm") == []


def test_results_and_generators_are_untouched(tmp_path: Path) -> None:
    def run() -> list[torch.Tensor]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(5, 4)).square().sum().backward()
            optimizer.step()
        return [*model.parameters(), torch.get_rng_state()]

    plain, kept = run(), []
    recorded(tmp_path, lambda: kept.extend(run()))
    assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))


# Lines of a backward


def test_ops_of_a_backward_have_the_line_of_the_forward_op(tmp_path: Path) -> None:
    w = torch.ones(3, 3, requires_grad=True)

    def run() -> None:
        y = torch.mm(w, w)  # mark: product
        z = torch.sin(y)  # mark: sine
        (z * 2).sum().backward()  # mark: end

    found = lines(recorded(tmp_path, run).rows, Phase.BACKWARD)
    assert found["aten::mm"] == {at("mark: product")}
    assert found["aten::cos"] == {at("mark: sine")}
    assert found["aten::expand"] == {at("mark: end")}
    assert found["aten::detach"] == {at("mark: end")}, "the gradient of a leaf"


def test_an_op_in_place_on_a_view_keeps_its_line(tmp_path: Path) -> None:
    w = torch.ones(3, 3, requires_grad=True)

    def run() -> None:
        y = w * 2
        z = y[0]
        z.relu_()  # mark: in place
        torch.zeros(2)
        (y + 1).sum().backward()

    found = lines(recorded(tmp_path, run).rows, Phase.BACKWARD)
    assert found["aten::threshold_backward"] == {at("mark: in place")}


def test_a_custom_function_has_its_own_lines(tmp_path: Path) -> None:
    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x.pow(2)  # mark: forward of Square

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            return grad.mul(x)  # mark: backward of Square

    w = torch.ones(3, requires_grad=True)
    made = recorded(tmp_path, lambda: Square.apply(w).sum().backward())  # type: ignore[no-untyped-call] # PyTorch's own
    assert lines(made.rows, Phase.FORWARD)["aten::pow"] == {at("mark: forward of Square")}
    assert lines(made.rows, Phase.BACKWARD)["aten::mul"] == {at("mark: backward of Square")}


def test_hooks_on_tensors_have_their_own_lines(tmp_path: Path) -> None:
    def hook(grad: torch.Tensor) -> torch.Tensor:
        return grad.clamp(max=1)  # mark: hook

    w = torch.ones(3, requires_grad=True)

    def run() -> None:
        y = w.exp()  # mark: hooked
        y.register_hook(hook)
        y.sum().backward()

    found = lines(recorded(tmp_path, run).rows, Phase.BACKWARD)
    assert found["aten::clamp"] == {at("mark: hook")}
    assert found["aten::mul"] == {at("mark: hooked")}


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_region_runs_again_at_its_own_lines(tmp_path: Path, reentrant: bool) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sin(self.inner(x))  # mark: block

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = checkpoint(self.block, x, use_reentrant=reentrant)
            return result

    net = Net()
    x = torch.ones(2, 3, requires_grad=True)
    made = recorded(tmp_path, lambda: net(x).sum().backward())
    again = [row for row in made.rows if row.phase is Phase.BACKWARD]
    expected = {
        "aten::addmm": "block.inner",
        "aten::cos": "block",
        "aten::mm": "block.inner",
    }
    for name, module in expected.items():
        rows = [row for row in again if row.name == name]
        assert rows, name
        for row in rows:
            assert (place(row)[0], row.module) == (at("mark: block"), module), name


def test_a_double_backward_goes_back_to_the_first_forward(tmp_path: Path) -> None:
    w = torch.ones(3, requires_grad=True)

    def run() -> None:
        y = w.exp()  # mark: exponential
        (grad,) = torch.autograd.grad(y.sum(), w, create_graph=True)
        grad.sum().backward()

    found = lines(recorded(tmp_path, run).rows, Phase.BACKWARD)
    assert found["aten::mul"] == {at("mark: exponential")}


def test_a_graph_from_before_has_the_line_of_its_backward(tmp_path: Path) -> None:
    w = torch.ones(3, requires_grad=True)
    y = w.exp()

    def run() -> None:
        y.sum().backward()  # mark: late

    assert lines(recorded(tmp_path, run).rows, Phase.BACKWARD)["aten::mul"] == {at("mark: late")}


def test_lines_are_remembered_in_memory_that_does_not_grow() -> None:
    from repro_audit.probe.detail.nodes import PLACES, Nodes

    nodes = Nodes(5)
    size = nodes._ring.buffer_info()[1]
    for end in (6, 9, 9 + 3 * PLACES):
        nodes.made(end, end)
    assert nodes._ring.buffer_info()[1] == size
    assert nodes.find(8) is None
    assert nodes.find(9 + 3 * PLACES - 1) == 9 + 3 * PLACES
    assert nodes.find(9 + 3 * PLACES) is None
    fresh = Nodes(5)
    fresh.made(7, 1)
    assert [fresh.find(number) for number in (4, 5, 6, 7)] == [None, 1, 1, None]


# Modules


def test_modules_are_named_by_their_path(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.ReLU())])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x * 2
            for layer in self.layers:
                x = layer(x)
            return x

    net, head, loss = Net(), nn.Sequential(nn.Linear(2, 2)), nn.MSELoss()

    def run() -> None:
        loss(head(net(torch.ones(1, 2))), torch.ones(1, 2)).backward()
        torch.zeros(1)

    found = [(row.name, row.phase.label, row.module) for row in recorded(tmp_path, run).rows]
    assert ("aten::mul", "forward", "") in found
    assert ("aten::addmm", "forward", "layers.0.0") in found
    assert ("aten::relu", "forward", "layers.0.1") in found
    assert ("aten::addmm", "forward", "Sequential.0") in found
    assert ("aten::mse_loss", "forward", "MSELoss") in found
    assert ("aten::threshold_backward", "backward", "layers.0.1") in found
    assert ("aten::mse_loss_backward", "backward", "MSELoss") in found
    assert found[-1] == ("aten::zeros", "forward", "")


def test_a_leafs_gradient_belongs_to_the_module_that_holds_it(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2))

    def run() -> None:
        for _ in range(2):
            net(torch.ones(1, 2)).sum().backward()

    rows = recorded(tmp_path, run).named("aten::add_")
    assert {row.module for row in rows} == {"0"}


def test_an_exception_leaves_no_module_behind(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2))

    def run() -> None:
        with pytest.raises(RuntimeError):
            net(torch.ones(1, 3))
        torch.zeros(1)

    assert recorded(tmp_path, run).rows[-1].module == ""


def test_hooks_on_modules_have_their_own_lines(tmp_path: Path) -> None:
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda _module, _args, out: out.exp())  # mark: module hook
    made = recorded(tmp_path, lambda: net(torch.ones(1, 2)))
    assert lines(made.rows, Phase.FORWARD)["aten::exp"] == {at("mark: module hook")}


# Draws


def test_draws_are_told_before_an_op_and_right_after_one_that_draws(tmp_path: Path) -> None:
    states: list[torch.Tensor] = []

    def run() -> None:
        before = torch.get_rng_state()
        torch.randn(3)  # mark: draw
        assert len(states) == 2
        assert torch.equal(states[0], before)
        assert not torch.equal(states[1], before)

    sites: list[int] = []

    def drew(site: int) -> None:
        sites.append(site)
        states.append(torch.get_rng_state())

    made = recorded(tmp_path, run, drew=drew)
    detail = made.detail
    assert f", {at('mark: draw')}, " in detail.strings[sites[0]]


def test_a_generator_is_no_input(tmp_path: Path) -> None:
    def run(seed: int) -> Callable[[], None]:
        generator = torch.Generator().manual_seed(seed)
        return lambda: (torch.randn(3, generator=generator), None)[1]

    one, other = (recorded(tmp_path / str(seed), run(seed)) for seed in (0, 1))
    found = parts_at(one, other)
    assert found is not None
    assert found.name == "aten::randn"


def compare(tmp_path: Path, run: Callable[[Any], Any], *values: Any) -> list[Recording]:
    """Record one function with several values."""
    return [
        recorded(tmp_path / str(number), lambda value=value: run(value))  # type: ignore[misc] # bound to each value
        for number, value in enumerate(values)
    ]


def test_arrays_that_change_behind_torchs_back_are_read_anew(tmp_path: Path) -> None:
    def run(value: float) -> None:
        array = np.zeros(3, dtype=np.float32)
        x = torch.from_numpy(array)
        y = x + 1
        array[0] = value
        torch.sin(y + x)

    one, other = compare(tmp_path, run, 1.0, 2.0)
    (first, last), (other_first, other_last) = one.named("aten::add"), other.named("aten::add")
    assert (first.before, first.after) == (other_first.before, other_first.after)
    assert last.before != other_last.before
