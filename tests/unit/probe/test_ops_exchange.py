"""Outputs that are saved, and reference values that are put in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from repro_audit.probe.digest.capture import ValueWriter
from repro_audit.probe.digest.tensors import overwrite
from repro_audit.storage.trace import Phase
from repro_audit.storage.values import Value, open_values
from tests.op_traces import parts_at, recorded, recording

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from repro_audit.storage.events import Event
    from repro_audit.storage.facts import Key
    from tests.op_traces import Recording


def key_of(row: Event, output: int = 0, occurrence: int = 0) -> Key:
    site = row.site.text() if row.site else ""
    return row.step, int(row.phase), f"{row.name}|{site}|{row.module}|{output}", occurrence


def value_of(tensor: torch.Tensor) -> Value:
    data = np.frombuffer(tensor.contiguous().numpy().tobytes(), dtype=np.uint8)
    return Value(
        dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape), data=data
    )


def captured(tmp_path: Path, run: Callable[[], Any], keys: frozenset[Key]) -> Any:
    writer = ValueWriter(tmp_path / "values")
    recorded(tmp_path / "captured", run, values=writer, capture=keys)
    return open_values(tmp_path / "values")


def test_outputs_are_saved_by_their_keys(tmp_path: Path) -> None:
    def run() -> None:
        for number in range(3):
            torch.full((2,), float(number)).sort()

    row = recorded(tmp_path / "plain", run).named("aten::sort")[0]
    keys = frozenset({key_of(row, 0, 2), key_of(row, 1, 0), key_of(row, 0, 3)})
    values = captured(tmp_path, run, keys)
    assert set(values) == {key_of(row, 0, 2), key_of(row, 1, 0)}
    assert values[key_of(row, 0, 2)].data.view("f4").tolist() == [2.0, 2.0]
    assert values[key_of(row, 1, 0)].dtype == "int64"


def test_what_an_op_writes_in_place_is_saved(tmp_path: Path) -> None:
    def run() -> None:
        torch._foreach_add_([torch.ones(1), torch.ones(2)], 1.0)

    row = recorded(tmp_path / "plain", run).named("aten::_foreach_add_")[0]
    values = captured(tmp_path, run, frozenset({key_of(row, 1)}))
    assert values[key_of(row, 1)].data.view("f4").tolist() == [2.0, 2.0]


class Hidden:
    """What the op below adds without having it as an input."""

    value = 0.0


library = torch.library.Library("repro_audit_tests", "DEF")
library.define("plant(Tensor x) -> Tensor")
library.impl("plant", lambda x: x + Hidden.value, "CPU")


def plant(x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = torch.ops.repro_audit_tests.plant(x)
    return result


def program(first: float, second: float) -> Callable[[], None]:
    def run() -> None:
        x = torch.ones(3)
        Hidden.value = first
        x = plant(x)
        x = x * 2
        Hidden.value = second
        x = plant(x)
        x.exp()

    return run


def test_feeding_the_reference_lets_the_second_cause_show(tmp_path: Path) -> None:
    reference = recorded(tmp_path / "a", program(0.0, 0.0))
    broken = recorded(tmp_path / "b", program(1.0, 1.0))
    first = parts_at(reference, broken)
    assert first is not None
    assert first.name == "repro_audit_tests::plant"
    assert first.index == reference.named(first.name)[0].index
    later = [row for row in broken.rows if row.index > first.index]
    assert all(
        row.before != twin.before
        for row, twin in zip(later, reference.rows[first.index + 1 :], strict=True)
    ), "its difference hides the second"

    key = key_of(first)
    value = captured(tmp_path, program(0.0, 0.0), frozenset({key}))[key]
    fed = recorded(tmp_path / "fed", program(1.0, 1.0), feed={key: value})
    own, second = fed.named(first.name)
    assert own.after == broken.rows[first.index].after, "the row shows what the op itself did"
    twin = reference.named(first.name)[1]
    assert second.before == twin.before
    assert second.after != twin.after


def test_a_value_of_another_form_is_not_fed(tmp_path: Path) -> None:
    plain = recorded(tmp_path / "a", program(0.0, 0.0))
    row = plain.named("repro_audit_tests::plant")[0]
    for number, tensor in enumerate((torch.zeros(4), torch.zeros(3, dtype=torch.float64))):
        fed = recorded(
            tmp_path / str(number), program(0.0, 0.0), feed={key_of(row): value_of(tensor)}
        )
        assert [each.before for each in fed.rows] == [each.before for each in plain.rows]


def test_a_fed_output_goes_through_backward_and_aliases(tmp_path: Path) -> None:
    grads: list[torch.Tensor] = []
    views: list[torch.Tensor] = []

    def run() -> None:
        x = torch.zeros(2, requires_grad=True)
        y = x.sigmoid()
        views.append(y.detach()[:1])
        y.sum().backward()
        assert x.grad is not None
        grads.append(x.grad)

    row = recorded(tmp_path / "plain", run).named("aten::sigmoid")[0]
    recorded(tmp_path / "fed", run, feed={key_of(row): value_of(torch.tensor([0.25, 1.0]))})
    assert [grad.tolist() for grad in grads] == [[0.25, 0.25], [0.1875, 0.0]]
    assert views[1].item() == 0.25


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, 3), torch.zeros(3, 2).T, torch.zeros(4, 6)[::2, ::2], torch.zeros(2, 3)[:, :0]],
)
def test_bytes_land_in_logical_order(tensor: torch.Tensor) -> None:
    value = value_of(torch.arange(1.0, 1 + tensor.numel()).reshape(tensor.shape))
    version = tensor._version
    assert overwrite(tensor, value.dtype, value.shape, value.data)
    assert tensor.flatten().tolist() == list(range(1, 1 + tensor.numel()))
    assert tensor._version == version


def test_elements_that_share_memory_are_not_overwritten() -> None:
    tensor = torch.zeros(1).expand(3)
    value = value_of(torch.arange(3.0))
    assert not overwrite(tensor, value.dtype, value.shape, value.data)
    assert not overwrite(torch.ones(3, device="meta"), value.dtype, value.shape, value.data)


def test_counts_are_of_one_step(tmp_path: Path) -> None:
    wanted: Key = (1, int(Phase.FORWARD), "aten::ones||0", 5)
    with recording(
        tmp_path, capture=frozenset({wanted}), values=ValueWriter(tmp_path / "v")
    ) as made:
        exchange = made.ops._exchange
        assert exchange is not None
        for step in (0, 1, 2):
            made.clock.step = step
            torch.ones(1)
            assert len(exchange._seen) == (1 if step else 0), "only of steps that are asked for"
        made.ops.step_ended()
        assert not exchange._seen


def test_without_wishes_nothing_is_counted(tmp_path: Path) -> None:
    made: Recording = recorded(tmp_path, lambda: torch.ones(1))
    assert made.ops._exchange is None
