"""The op-level probe in the cases of `tests/benchmarks/debug_mode.py`, which defeat weaker hashes or rows in step."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from repro_audit.storage.events import Detail
from tests.auditing import REPOSITORY, environment
from tests.benchmarks import debug_mode
from tests.benchmarks.debug_mode import (
    BATCH,
    COLLISIONS,
    COLUMNS,
    EQUAL_NANS,
    ONE_MORE,
    Case,
    pair,
    train,
)
from tests.op_traces import line_of, parts_at, recorded

if TYPE_CHECKING:
    from pathlib import Path


def at(mark: str) -> int:
    return line_of(mark, debug_mode.__file__)


@pytest.mark.parametrize("case", COLLISIONS, ids=lambda case: case.name)
def test_another_batch_is_blamed_on_the_batch(tmp_path: Path, case: Case) -> None:
    first = parts_at(*pair(tmp_path, case))
    assert first is not None
    assert first.name == "repro_audit_batches::take"
    assert first.site is not None
    assert first.site.line == at("mark: batch")


def test_a_product_of_another_batch_has_other_inputs(tmp_path: Path) -> None:
    one, other = pair(tmp_path, COLUMNS)
    (product,), (other_product,) = one.named("aten::mm"), other.named("aten::mm")
    assert product.before != other_product.before


def test_the_same_batch_is_the_same(tmp_path: Path) -> None:
    """The twin of the cases above: the probe finds nothing where nothing is."""
    same = Case(name="the same", run=train, one=BATCH, other=BATCH.clone())
    assert parts_at(*pair(tmp_path, same)) is None


def test_equal_nans_are_equal(tmp_path: Path) -> None:
    one, other = pair(tmp_path, EQUAL_NANS)
    assert [(row.before, row.after) for row in one.rows] == [
        (row.before, row.after) for row in other.rows
    ]


def test_one_op_more_is_the_finding(tmp_path: Path) -> None:
    one, other = pair(tmp_path, ONE_MORE)
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
import sys
from pathlib import Path
from tests.benchmarks.debug_mode import BATCH, train
from tests.op_traces import recorded

flipped = BATCH.flip(0)
recorded(Path(sys.argv[1], "plain"), lambda: train(BATCH))
recorded(Path(sys.argv[1], "flipped"), lambda: train(flipped))
"""


@pytest.mark.audit
def test_traces_of_two_processes_compare(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, env=environment(), check=True)

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
