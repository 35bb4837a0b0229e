"""The cases that defeat PyTorch's own `DebugMode`, each run under it and under the op-level probe.

Each case is a program in two variants. `DebugMode` says what its `check_hash_mismatches` finds; the probe's answer is
the first op whose inputs are equal and whose outputs are not, or the first row that one run has and the other has not.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import torch
from torch.utils._debug_mode import DebugMode

from repro_audit.storage.events import Detail
from tests.auditing import environment
from tests.op_traces import line_of, parts_at, recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.op_traces import Recording

Hash = Literal["norm", "hash_tensor"]


def at(mark: str) -> int:
    return line_of(mark, __file__)


def mismatches(
    run: Callable[[Any], Any], one: Any, other: Any, hash_fn: Hash = "norm", *, inputs: bool = True
) -> list[dict[str, Any]]:
    """What `DebugMode` finds between two variants."""
    logs = []
    for variant in (one, other):
        with DebugMode() as mode, DebugMode.log_tensor_hashes(hash_fn=hash_fn, hash_inputs=True):
            run(variant)
        logs.append(mode.logs)
    found: list[dict[str, Any]] = DebugMode.check_hash_mismatches(
        logs[0], logs[1], compare_inputs=inputs
    )
    return found


def pair(tmp_path: Path, run: Callable[[Any], Any], one: Any, other: Any) -> list[Recording]:
    """What the probe records of two variants."""
    first = recorded(tmp_path / "one", lambda: run(one))
    return [first, recorded(tmp_path / "other", lambda: run(other))]


# A batch that differs from run to run comes out of an operator, as it would out of a loader.
library = torch.library.Library("repro_audit_batches", "DEF")
library.define("take(str name) -> Tensor")
batches: dict[str, torch.Tensor] = {}
library.impl("take", lambda name: batches[name].clone(), "CompositeExplicitAutograd")


def train(batch: torch.Tensor) -> None:
    """A matrix product on a batch that comes from outside."""
    batches["next"] = batch
    weight = torch.arange(6.0).reshape(2, 3)
    x = torch.ops.repro_audit_batches.take("next")  # mark: batch
    torch.mm(x, weight)


def reduced(batch: torch.Tensor) -> None:
    """The same with nothing that depends on the order afterwards."""
    batches["next"] = batch
    x = torch.ops.repro_audit_batches.take("next")
    x.sum()


BATCH = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
CASES: dict[str, tuple[torch.Tensor, torch.Tensor, Hash]] = {
    "permuted batch": (BATCH, BATCH.flip(0), "norm"),
    "sign flip": (BATCH, -BATCH, "norm"),
    "all 3s against all 7s": (torch.full((2, 2), 3.0), torch.full((2, 2), 7.0), "hash_tensor"),
}


@pytest.mark.parametrize("case", CASES)
def test_hashes_that_collide(tmp_path: Path, case: str) -> None:
    one, other, hash_fn = CASES[case]
    theirs = mismatches(train, one, other, hash_fn)
    assert not any("take" in found["call"] for found in theirs), (
        "it does not see that the batch differs"
    )

    first = parts_at(*pair(tmp_path, train, one, other))
    assert first is not None
    assert first.name == "repro_audit_batches::take"
    assert first.site is not None
    assert first.site.line == at("mark: batch")


def test_a_permuted_batch_is_blamed_on_the_batch_and_not_on_a_product(tmp_path: Path) -> None:
    columns = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    swapped = columns.flip(1)
    theirs = mismatches(train, columns, swapped)
    assert "mm" in theirs[0]["call"], "the first that it finds"
    assert theirs[0]["is_input_hash"] is False, "with inputs that it takes for equal"

    one, other = pair(tmp_path, train, columns, swapped)
    (product,), (other_product,) = one.named("aten::mm"), other.named("aten::mm")
    assert product.before != other_product.before


def test_the_same_batch_is_the_same(tmp_path: Path) -> None:
    """The twin of the cases above: the probe finds nothing where nothing is, and `DebugMode` finds a batch at times."""
    assert any("take" in found["call"] for found in mismatches(train, BATCH, BATCH + 1))
    assert parts_at(*pair(tmp_path, train, BATCH, BATCH.clone())) is None
    assert mismatches(train, BATCH, BATCH.clone()) == []


def test_equal_nans_are_equal(tmp_path: Path) -> None:
    nan = torch.full((2, 2), float("nan"))
    assert mismatches(reduced, nan, nan.clone()), "it takes equal tensors for different"
    one, other = pair(tmp_path, reduced, nan, nan.clone())
    assert [(row.before, row.after) for row in one.rows] == [
        (row.before, row.after) for row in other.rows
    ]


def test_one_op_more_is_the_finding(tmp_path: Path) -> None:
    def run(more: bool) -> None:
        x = torch.ones(2, 2)
        if more:
            x.add_(0)  # mark: more
        x.exp()

    with pytest.raises(ValueError, match="Log lengths don't match"):
        mismatches(run, False, True)

    one, other = pair(tmp_path, run, False, True)
    names, more = [row.name for row in one.rows], [row.name for row in other.rows]
    assert names == ["aten::ones", "aten::exp"]
    (extra,) = [row for row in other.rows if row.name not in names]
    assert more.index(extra.name) == 1
    assert extra.site is not None
    assert extra.site.line == at("mark: more")
    # Nothing else parts: the op changed nothing.
    last, twin = one.rows[-1], other.rows[-1]
    assert (last.before, last.after) == (twin.before, twin.after)


SCRIPT = """
import json, sys
from pathlib import Path
from torch.utils._debug_mode import DebugMode
from tests.op_traces import recorded
from tests.test_debug_mode import BATCH, train

flipped = BATCH.flip(0)
recorded(Path(sys.argv[1], "plain"), lambda: train(BATCH))
recorded(Path(sys.argv[1], "flipped"), lambda: train(flipped))
with DebugMode() as mode, DebugMode.log_tensor_hashes(hash_fn="norm"):
    train(BATCH)
try:
    json.dumps(mode.logs)
except TypeError as error:
    print(error)
"""


def test_traces_of_two_processes_compare(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        command, cwd=root, env=environment(), check=True, capture_output=True, text=True
    )
    assert "not JSON serializable" in done.stdout, "their logs are objects of one process"

    here = recorded(tmp_path / "here", lambda: train(BATCH)).rows
    plain, flipped = (
        [trace.event(index) for index in range(len(trace))]
        for trace in (Detail.open(tmp_path / "plain"), Detail.open(tmp_path / "flipped"))
    )
    assert here == plain
    first = next(
        row
        for row, twin in zip(here, flipped, strict=True)
        if row.before == twin.before and row.after != twin.after
    )
    assert first.name == "repro_audit_batches::take"
    assert first.site is not None
    assert first.site.line == at("mark: batch")
