"""Memory that nothing has written is filled; deterministic mode's own filling stays the program's choice."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from repro_audit.context import TrialContext
from repro_audit.replacements import Replacements
from repro_audit.source import Levels
from repro_audit.sources import nondeterministic_op, uninitialized_memory
from repro_audit.storage.facts import Facts
from tests.auditing import check, write_target

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.usefixtures("shared_interpreters"),
    pytest.mark.skipif(
        not isinstance(uninitialized_memory.levels(Facts()), Levels), reason="needs glibc"
    ),
]
LEVELS = tuple(uninitialized_memory.BYTES)


def context(tmp_path: Path) -> TrialContext:
    return TrialContext(seed=0, setting={}, directory=tmp_path, root=tmp_path)


def bytes_of(value: Any) -> set[int]:
    array = value.numpy() if isinstance(value, torch.Tensor) else value
    return set(np.frombuffer(array.tobytes(), "u1").tolist())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [300, 5_000, 500_000])
def test_every_way_to_take_memory_is_filled(tmp_path: Path, level: str, size: int) -> None:
    like = torch.ones(size)
    with uninitialized_memory.apply(level, context(tmp_path)):
        taken = [
            torch.empty(size),
            torch.empty_like(like),
            like.new_empty(size),
            torch.empty_strided((size,), (1,)),
            torch.Tensor(size),
            torch.empty(0).resize_(size),
            np.empty(size, "f4"),
            np.empty_like(like.numpy()),
        ]
        found = [bytes_of(each) for each in taken]
    assert found == [{uninitialized_memory.BYTES[level]}] * len(taken)


@pytest.mark.parametrize("level", LEVELS)
def test_small_arrays_are_filled_and_objects_are_not(tmp_path: Path, level: str) -> None:
    with uninitialized_memory.apply(level, context(tmp_path)):
        assert bytes_of(np.empty(3, "f4")) == {uninitialized_memory.BYTES[level]}
        assert np.empty(2, object).tolist() == [None, None]
        assert np.empty(0).shape == (0,)


def test_what_is_written_stays_and_everything_is_put_back(tmp_path: Path) -> None:
    original = np.empty
    torch.manual_seed(0)
    expected = torch.randn(4_000)
    with uninitialized_memory.apply("0xff", context(tmp_path)):
        torch.manual_seed(0)
        assert torch.equal(torch.randn(4_000), expected)
        assert np.zeros(5_000).sum() == 0
    assert np.empty is original


def test_another_c_library_can_not_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    uninitialized_memory._glibc.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    try:
        assert "glibc" in str(uninitialized_memory.levels(Facts()))
        assert uninitialized_memory.environment("zeros") == {}
    finally:
        uninitialized_memory._glibc.cache_clear()


def test_later_glibc_is_kept_from_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uninitialized_memory, "_glibc", lambda: (2, 39))
    monkeypatch.setenv("GLIBC_TUNABLES", "a=1")
    environments = [uninitialized_memory.environment(level) for level in LEVELS]
    assert environments == [{"GLIBC_TUNABLES": "a=1:glibc.malloc.tcache_count=0"}] * len(LEVELS)


def test_a_program_that_asks_for_deterministic_algorithms_has_its_memory_filled() -> None:
    class Module:
        force = True
        fill_uninitialized_memory = property(
            lambda self: self.force, lambda self, value: setattr(self, "force", value)
        )

    module = Module()
    fill = nondeterministic_op._Fill(module, Replacements())
    assert (module.force, module.fill_uninitialized_memory) == (False, True)
    fill.asked_for(mode=True)
    assert module.force
    module.fill_uninitialized_memory = False
    assert (module.force, module.fill_uninitialized_memory) == (False, False)


@pytest.mark.deep
def test_two_causes_in_workers_and_main_process(tmp_path: Path) -> None:
    body = """
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset

    class Partly(Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, index):
            x = np.empty(4, "float32")
            x[1:] = index
            return torch.from_numpy(x)

    def build(seed):
        torch.manual_seed(seed)
        shift = np.random.rand()
        loader = DataLoader(Partly(), batch_size=4, num_workers=1)
        step = lambda model, batch: (model(batch / 16) + shift).sum()
        return {"model": nn.Linear(4, 1), "loader": loader, "train_step": step}
    """
    program = write_target(tmp_path, body)
    only = ("uninitialized-memory", "numpy-rng", "torch-rng", "nondeterministic-op")
    options = [option for name in only for option in ("--only", name)]
    found = check(
        "train.py:build",
        "--steps",
        "2",
        *options,
        cwd=program.parent,
        saved=tmp_path / "report.json",
    )
    assert found.broke == {"uninitialized-memory", "numpy-rng"}
