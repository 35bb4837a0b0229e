"""Objects are numbered in place of addresses; what no number reaches is moved with the heap, and blames nobody else."""

from __future__ import annotations

import builtins
import copy
import gc
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch

from repro_audit.experiment import Outcome, Run
from repro_audit.sources.emulation import addresses as _addresses
from repro_audit.sources.emulation.addresses import (
    Numbers,
    ascending,
    descending,
    numbered,
    scattered,
    shuffle_heap,
)
from tests.auditing import check, write_target
from tests.planted import Program, audit, factor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.usefixtures("shared_interpreters"),
    pytest.mark.skipif(not _addresses.supported(), reason="CPython of 64 bits with a GIL"),
]


@pytest.fixture(params=[ascending, descending, scattered])
def numbers(request: pytest.FixtureRequest) -> Iterator[Numbers]:
    found = Numbers(request.param)
    with numbered(found, lambda _module, callback: callback()):
        yield found


def order_of(order: Callable[[int], int]) -> list[int]:
    """The order in which a set gives eight objects back."""
    with numbered(Numbers(order), lambda _module, callback: callback()):

        class Thing:
            def __init__(self, number: int) -> None:
                self.number = number

        return [thing.number for thing in {Thing(number) for number in range(8)}]


def test_the_order_of_a_set_is_the_levels() -> None:
    assert order_of(ascending) == list(range(8))
    assert order_of(descending) == list(reversed(range(8)))
    assert sorted(order_of(scattered)) == list(range(8)) != order_of(scattered)


def test_ids_and_hashes_stay_unique_and_steady(numbers: Numbers) -> None:
    things = [torch.nn.Linear(1, 1) for _ in range(20)]
    ids = [id(thing) for thing in things]
    assert len(set(ids)) == 20
    assert ids == [id(thing) for thing in things]
    assert len({hash(thing) for thing in things}) == 20
    assert id(things) == numbers._real_id(things)  # a list can have no weak references
    weight = things[0].weight
    assert {weight: 1}[weight] == 1
    assert copy.deepcopy(things[0]).weight is not weight


def test_a_number_ends_with_its_object(numbers: Numbers) -> None:
    thing = torch.nn.Linear(1, 1)
    first = id(thing)
    del thing
    gc.collect()
    assert first not in {id(torch.nn.Linear(1, 1)) for _ in range(20)}
    assert len(numbers._known) < 20


def test_classes_are_as_they_were(numbers: Numbers) -> None:
    @dataclass
    class Unhashable:
        x: int

    class Plain: ...

    class Hashed:
        def __hash__(self) -> int:
            return 7

    with pytest.raises(TypeError):
        hash(Unhashable(1))
    assert "__hash__" not in vars(Plain)
    assert hash(Hashed()) == 7


def test_everything_is_put_back() -> None:
    before = (
        builtins.id,
        builtins.__build_class__,
        torch.Tensor.__hash__,
        torch.nn.Module.__hash__,
    )
    with numbered(Numbers(ascending), lambda _module, callback: callback()):
        assert builtins.id is not before[0]
    after = (builtins.id, builtins.__build_class__, torch.Tensor.__hash__, torch.nn.Module.__hash__)
    assert after == before


def test_a_shuffled_heap_gives_other_addresses() -> None:
    def ups() -> int:
        blocks = [(lambda number=number: number) for number in range(100)]
        places = [id(block) for block in blocks]
        return sum(a < b for a, b in pairwise(places))

    shuffle_heap(1)
    assert 20 < ups() < 80  # neither up nor down


# The experiment

ADDRESS = factor("address", "heap", unpinnable="heap")


def test_what_moves_with_the_heap_blames_nobody_else() -> None:
    program = Program(culprits=frozenset({("address", "heap"), ("a", "v0")}))
    judgements = audit(program, [ADDRESS, factor("a"), factor("b")]).judgements
    assert (judgements["address"].status, judgements["a"].status) == ("broke", "untested")
    assert "address can not be pinned" in str(judgements["a"].note)
    assert judgements["b"].status == "held"


def test_where_the_heap_moves_nothing_others_are_blamed() -> None:
    program = Program(culprits=frozenset({("a", "v0")}))
    judgements = audit(program, [ADDRESS, factor("a")]).judgements
    assert (judgements["address"].status, judgements["a"].status) == ("held", "broke")


class ByLayout(Program):
    """What it computes hangs on the layout: of each fresh interpreter, or of the one that all others fork from."""

    def _outcome(self, trial: str, run: Run, number: int) -> Outcome:
        layout = f"fresh {number}" if run.fresh else str(run.setting.get("address", "forked"))
        return Outcome(trial=trial, status="ok", digest=layout + str(run.setting.get("a")))


def test_a_layout_that_nothing_pins_is_suspected() -> None:
    program = ByLayout()
    result = audit(program, [ADDRESS, factor("a"), factor("b")])
    address, a = result.judgements["address"], result.judgements["a"]
    assert (address.status, address.confidence, address.undone) == ("broke", "suspected", None)
    # It changes what runs of every layout have in common.
    assert (a.status, a.confidence, a.narrowed) == ("broke", "suspected", True)
    assert result.judgements["b"].status == "untested"
    assert (result.unexplained, result.faithful) == (None, True)


def test_noise_is_not_taken_for_the_layout() -> None:
    result = audit(Program(noisy=lambda number: number > 0), [ADDRESS, factor("a")])
    assert {each.status for each in result.judgements.values()} == {"untested"}
    assert result.unexplained is not None


# Audits

HEAD = """
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    class Thing:
        def __init__(self, number):
            self.number = number

    def parts(order, shift):
        x = torch.randn(24, 3)[list(order)] + shift
        return nn.Linear(3, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
"""


def audited(tmp_path: Path, body: str, *ids: str, runs: int = 3) -> Any:
    program = write_target(tmp_path, HEAD + body)
    only = [option for name in ids for option in ("--only", name)]
    options = ("--steps", "2", "--runs", str(runs), *only)
    saved = tmp_path / "report.json"
    return check("train.py:build", *options, cwd=program.parent, saved=saved)


def test_three_causes_are_named_and_no_other(tmp_path: Path) -> None:
    body = """
    def build(seed):
        torch.manual_seed(seed)
        order = [thing.number for thing in {Thing(number) for number in range(24)}]
        words = list({"one", "two", "three", "four", "five"})
        return parts(order, np.random.rand() + words.index("two"))
    """
    found = audited(
        tmp_path, body, "object-address", "hash-seed", "numpy-rng", "torch-rng", "python-rng"
    )
    assert found.broke == {"object-address", "hash-seed", "numpy-rng"}
    assert found.source("object-address")["fix"]["verified"]
    assert "train.py:17" in found.terminal


def test_functions_in_a_set_move_with_the_heap_and_accuse_nobody(tmp_path: Path) -> None:
    body = """
    def build(seed):
        torch.manual_seed(seed)
        functions = {(lambda number=number: number) for number in range(24)}
        return parts([function() for function in functions], np.random.rand())
    """
    # Every run is in an interpreter of its own here, so few of them.
    found = audited(tmp_path, body, "object-address", "numpy-rng", runs=1)
    assert found.broke == {"object-address"}
    assert found.source("numpy-rng")["status"] == "not-exercised"
    assert found.report["unexplained"] is None
