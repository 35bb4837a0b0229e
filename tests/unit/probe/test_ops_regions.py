"""Regions that `torch.compile` made: one row each, compiled as they are when nobody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from repro_audit.storage.trace import Phase
from tests.op_traces import line_of, parts_at, recorded, recording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPAQUE = "compiled, the ops inside are not seen: "


def at(mark: str) -> int:
    return line_of(mark, __file__)


@pytest.fixture(autouse=True)
def no_earlier_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Backend:
    """Counts the graphs that it is asked to compile."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, _inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


def test_a_compiled_function_is_compiled_and_one_row(tmp_path: Path) -> None:
    backend = Backend()
    results: list[torch.Tensor] = []

    def run() -> None:
        function = torch.compile(lambda x: (x * 2).sin(), backend=backend)
        results.extend(function(torch.ones(3)) for _ in range(2))  # mark: region

    made = recorded(tmp_path, run)
    assert backend.graphs == 1
    rows = [row for row in made.rows if row.name != "aten::ones"]
    assert [row.name for row in rows] == ["torch.compile"] * 2
    assert {row.meta for row in rows} == {f"{OPAQUE}float32[3]"}
    assert {row.site.line for row in rows if row.site} == {at("mark: region")}
    assert torch.equal(results[1], torch.full((3,), 2.0).sin())


def test_a_foreign_mode_would_leave_it_uncompiled() -> None:
    """The twin: what would happen to the program without our care."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Passes(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return func(*args, **(kwargs or {}))

    backend, kind = Backend(), Passes
    mode: Any = kind
    with mode():
        torch.compile(lambda x: x * 2, backend=backend)(torch.ones(3))
    assert backend.graphs == 0


def test_what_goes_in_and_out_differs(tmp_path: Path) -> None:
    scale = torch.ones(3)

    def run(x: float) -> None:
        torch.compile(lambda x: x * scale, backend="eager")(torch.full((3,), x))

    one, other = (recorded(tmp_path / str(x), lambda x=x: run(x)) for x in (1.0, 2.0))  # type: ignore[misc] # bound to each value
    (row,), (other_row,) = one.named("torch.compile"), other.named("torch.compile")
    assert row.before != other_row.before
    assert row.after != other_row.after
    scale += 1
    third = recorded(tmp_path / "scaled", lambda: run(1.0))
    assert third.named("torch.compile")[0].before != row.before, "what a function closes over"
    scale -= 1
    assert parts_at(one, recorded(tmp_path / "again", lambda: run(1.0))) is None


def test_a_compiled_module_is_one_row_with_its_state(tmp_path: Path) -> None:
    def run(seed: int) -> None:
        torch.manual_seed(seed)
        model = torch.compile(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), backend="eager")
        model(torch.ones(1, 2))

    one, other = (recorded(tmp_path / str(x), lambda x=x: run(x)) for x in (0, 1))  # type: ignore[misc] # bound to each value
    (row,), (other_row,) = one.named("torch.compile"), other.named("torch.compile")
    assert row.before != other_row.before
    assert one.named("aten::addmm") == []
    same = recorded(tmp_path / "same", lambda: run(0))
    assert same.named("torch.compile")[0].before == row.before


def test_a_module_compiled_in_place_is_one_row(tmp_path: Path) -> None:
    def run() -> None:
        model = nn.Linear(2, 2)
        model.compile(backend="eager")
        model(torch.ones(1, 2))

    made = recorded(tmp_path, run)
    assert len(made.named("torch.compile")) == 1
    assert made.named("aten::addmm") == []


def test_the_backward_of_aot_autograd_is_one_row(tmp_path: Path) -> None:
    w = torch.ones(3, requires_grad=True)

    def run() -> None:
        function = torch.compile(lambda x: x.sin().cos(), backend="aot_eager")
        y = function(w)  # mark: compiled
        y.sum().backward()

    made = recorded(tmp_path, run)
    forward, backward = made.named("torch.compile")
    assert (forward.phase, backward.phase) == (Phase.FORWARD, Phase.BACKWARD)
    assert backward.meta == f"{OPAQUE}float32[3]"
    assert forward.site is not None
    assert forward.site == backward.site
    assert forward.site.line == at("mark: compiled")
    assert made.named("aten::sin") == made.named("aten::cos") == []
    assert w.grad is not None
    assert torch.allclose(w.grad, -torch.ones(3).sin().sin() * torch.ones(3).cos())


def test_the_backward_of_another_backend_is_seen_at_the_regions_line(tmp_path: Path) -> None:
    w = torch.ones(3, requires_grad=True)

    def run() -> None:
        function = torch.compile(lambda x: x.sin(), backend="eager")
        y = function(w)  # mark: eager
        y.sum().backward()

    (row,) = recorded(tmp_path, run).named("aten::cos")
    assert row.phase is Phase.BACKWARD
    assert row.site is not None
    assert row.site.line == at("mark: eager")


def test_a_region_in_a_region_is_part_of_it(tmp_path: Path) -> None:
    def run() -> None:
        def twice(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        inner = torch.compile(twice, backend="eager")

        def more(x: torch.Tensor) -> torch.Tensor:
            return inner(x) + 1

        outer = torch.compile(more, backend="eager")
        assert torch.equal(outer(torch.ones(2)), torch.full((2,), 3.0))

    assert len(recorded(tmp_path, run).named("torch.compile")) == 1


def test_an_exception_puts_the_mode_back(tmp_path: Path) -> None:
    def fail(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        raise ValueError

    with recording(tmp_path) as made:
        with pytest.raises(ValueError):  # noqa: PT011 - raised above
            torch.compile(fail, backend="eager")(torch.ones(2))
        torch.zeros(1)
    assert [row.name for row in made.rows] == ["aten::ones", "aten::zeros"]


def test_what_was_compiled_under_the_probe_works_without_it(tmp_path: Path) -> None:
    def more(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    kept: list[Any] = []
    recorded(tmp_path, lambda: kept.append(torch.compile(more, backend="eager")))
    assert torch.equal(kept[0](torch.ones(2)), torch.full((2,), 2.0))
