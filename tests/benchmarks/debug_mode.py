"""Six cases that defeat PyTorch's own `DebugMode`, and what the op-level probe says of them: a table.

Run as `python -m tests.benchmarks.debug_mode`. Each case is a program in two variants. `DebugMode` says what its
`check_hash_mismatches` finds; the probe's answer is the first op whose inputs are equal and whose outputs are not, or
the first row that one run has and the other has not. `tests/unit/probe/test_ops_cases.py` holds the probe to it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from tests.op_traces import parts_at, recorded

if TYPE_CHECKING:
    from collections.abc import Callable

    from repro_audit.storage.events import Event
    from tests.op_traces import Recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A program in two variants."""

    name: str
    run: Callable[[Any], None]
    one: Any
    other: Any
    hash_function: Literal["norm", "hash_tensor"] = "norm"


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


def inserted(more: bool) -> None:
    """One op more in one variant, which changes nothing."""
    x = torch.ones(2, 2)
    if more:
        x.add_(0)  # mark: more
    x.exp()


BATCH = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
NANS = torch.full((2, 2), float("nan"))
COLLISIONS = (
    Case(name="permuted batch", run=train, one=BATCH, other=BATCH.flip(0)),
    Case(name="sign flip", run=train, one=BATCH, other=-BATCH),
    Case(
        name="all 3s against all 7s",
        run=train,
        one=torch.full((2, 2), 3.0),
        other=torch.full((2, 2), 7.0),
        hash_function="hash_tensor",
    ),
)
"""Batches whose hashes collide."""
COLUMNS = Case(name="swapped columns", run=train, one=BATCH, other=BATCH.flip(1))
EQUAL_NANS = Case(name="equal NaNs", run=reduced, one=NANS, other=NANS.clone())
ONE_MORE = Case(name="one op more", run=inserted, one=False, other=True)
CASES = (*COLLISIONS, COLUMNS, EQUAL_NANS, ONE_MORE)


def pair(directory: Path, case: Case) -> tuple[Recording, Recording]:
    """What the probe records of both variants."""
    one = recorded(directory / "one", lambda: case.run(case.one))
    return one, recorded(directory / "other", lambda: case.run(case.other))


def ours(case: Case, directory: Path) -> str:
    """What the probe finds."""
    one, other = pair(directory, case)
    parted = parts_at(one, other)
    if parted is not None:
        return f"{_placed(parted)} makes other values of equal inputs"
    names = [row.name for row in one.rows]
    more = next((row for row in other.rows if row.name not in names), None)
    return "no difference" if more is None else f"{_placed(more)} is in one run only"


def _placed(row: Event) -> str:
    return f"{row.name} in line {row.site.line if row.site else 0}"


def theirs(case: Case) -> str:
    """What `DebugMode` finds first."""
    from torch.utils._debug_mode import DebugMode

    logs = []
    for variant in (case.one, case.other):
        with (
            DebugMode() as mode,
            DebugMode.log_tensor_hashes(hash_fn=case.hash_function, hash_inputs=True),
        ):
            case.run(variant)
        logs.append(mode.logs)
    try:
        found = DebugMode.check_hash_mismatches(logs[0], logs[1], compare_inputs=True)
    except ValueError as error:
        return f"an error: {error}"
    if not found:
        return "no difference"
    of = "inputs" if found[0]["is_input_hash"] else "outputs"
    return f"{found[0]['call']} has other {of}"


def main() -> None:
    """Print a row a case."""
    print("| case | DebugMode | op-level probe |", "| --- | --- | --- |", sep="\n")
    for case in CASES:
        with tempfile.TemporaryDirectory() as directory:
            print(f"| {case.name} | {theirs(case)} | {ours(case, Path(directory))} |")


if __name__ == "__main__":
    main()
