"""Workers do their tasks in the order that the level says, whichever way they start."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from repro_audit.sources import worker_order
from repro_audit.sources.emulation.turns import FIRST_EARLY, FIRST_LATE, IN_TURN, Board, in_order
from repro_audit.storage.facts import Facts
from tests.auditing import check, write_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_interpreters")


class Counted(Dataset[int]):
    """A sample is the number of samples that all workers have made before."""

    def __init__(self) -> None:
        self.count: Any = multiprocessing.get_context("fork").Value("i", 0)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        with self.count.get_lock():
            self.count.value += 1
            return int(self.count.value) - 1


class Streamed(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        assert info is not None
        return iter(range(info.id * 10, info.id * 10 + 2 + info.id))


def taken(loader: DataLoader[Any], order: str, path: Path) -> list[int]:
    with in_order(order, path):
        return [int(item) for batch in loader for item in batch]


def loader_of(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset, num_workers=2, batch_size=2, multiprocessing_context="fork", **options
    )


def test_what_workers_share_changes_in_turn(tmp_path: Path) -> None:
    assert taken(loader_of(Counted()), IN_TURN, tmp_path) == list(range(8))


@pytest.mark.parametrize(("order", "first"), [(FIRST_LATE, 1), (FIRST_EARLY, 0)])
def test_a_worker_held_back_comes_after_the_other(tmp_path: Path, order: str, first: int) -> None:
    found = taken(loader_of(Counted()), order, tmp_path)
    assert sorted(found) == list(range(8))
    # Batches 0 and 2 are the first worker's, 1 and 3 the second one's.
    ahead, behind = (found[2:4] + found[6:], found[:2] + found[4:6])[:: 1 if first else -1]
    assert max(ahead) < min(behind)


def test_batches_out_of_order(tmp_path: Path) -> None:
    numbers: Any = [torch.tensor(number) for number in range(8)]
    loader = loader_of(numbers, in_order=False)
    assert taken(loader, IN_TURN, tmp_path) == list(range(8))
    assert taken(loader, FIRST_LATE, tmp_path)[:2] == [2, 3]


@pytest.mark.parametrize("order", [IN_TURN, FIRST_LATE, FIRST_EARLY])
@pytest.mark.parametrize("persistent", [False, True])
def test_several_epochs_one_of_them_broken_off(
    tmp_path: Path, order: str, persistent: bool
) -> None:
    numbers: Any = [torch.tensor(number) for number in range(12)]
    loader = loader_of(numbers, persistent_workers=persistent)
    with in_order(order, tmp_path):
        assert next(iter(loader)).tolist() == [0, 1]
        for _ in range(2):
            assert [int(item) for batch in loader for item in batch] == list(range(12))


@pytest.mark.parametrize("order", [IN_TURN, FIRST_LATE, FIRST_EARLY])
def test_workers_that_run_dry(tmp_path: Path, order: str) -> None:
    assert sorted(taken(loader_of(Streamed()), order, tmp_path)) == [0, 1, 10, 11, 12]


def test_turns_count_up_and_never_back(tmp_path: Path) -> None:
    board, same = Board.make(tmp_path / "board", 2), Board(tmp_path / "board")
    board.send(1)
    assert (same.workers, same.idle(range(1)), same.idle(range(2))) == (2, True, False)
    assert board.busy()  # the worker is on its way
    same.begin(1)
    assert not board.busy()
    same.take(1)
    assert board.busy()
    same.finish(1)
    same.advance(3)
    board.advance(2)
    assert (board.turn, board.busy(), board.idle(range(2))) == (3, False, True)


def test_it_takes_two_workers() -> None:
    for count in (0, 1):
        answer = worker_order.levels(Facts(loaders=({"num_workers": count},)))
        assert "two workers" in str(answer)


@pytest.mark.deep
def test_two_causes_are_named_and_no_other(tmp_path: Path) -> None:
    body = """
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def build(seed):
        torch.manual_seed(seed)
        x = torch.randn(16, 3) + np.random.rand()
        data = TensorDataset(x.float(), x.float()[:, :1])
        return nn.Linear(3, 1), DataLoader(data, batch_size=4, num_workers=2, in_order=False)
    """
    program = write_target(tmp_path, body)
    options = [
        option for name in ("worker-order", "numpy-rng", "torch-rng") for option in ("--only", name)
    ]
    saved = tmp_path / "report.json"
    found = check("train.py:build", "--steps", "4", *options, cwd=program.parent, saved=saved)
    assert found.broke == {"worker-order", "numpy-rng"}
