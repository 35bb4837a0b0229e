"""What torch.compile made serves the trials that compile under the same levels; no two write into one directory."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from repro_audit.isolation import compiled
from repro_audit.isolation.compiled import Compiled
from repro_audit.probe.files import is_users
from repro_audit.sources import nondeterministic_op
from tests.trials import lab

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.sharing import Interpreters

PROGRAM = """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def build(seed):
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        model = nn.Linear(8, 1)
        twice = torch.compile(lambda x: x * 2 + 1)
        x = torch.randn(32, 8)
        loss = lambda y, t: ((twice(y) - t) ** 2).mean()
        return model, DataLoader(TensorDataset(x, x[:, :1]), batch_size=8), loss
"""


def made(temporary: Path, name: str) -> None:
    (temporary / compiled.DIRECTORY).mkdir(parents=True)
    (temporary / compiled.DIRECTORY / name).write_text(name, encoding="utf-8")


def test_each_level_has_what_was_compiled_under_it(tmp_path: Path) -> None:
    kept = Compiled(tmp_path / "kept", ("cpu-isa", "thread-count"))
    pinned = {"cpu-isa": "as is", "thread-count": "as is", "clock": "noon"}
    assert kept.of(pinned) is None
    made(tmp_path / "t0", "first")
    kept.keep(pinned, tmp_path / "t0")
    made(tmp_path / "t1", "second")
    later = {**pinned, "clock": "later"}
    kept.keep(later, tmp_path / "t1")
    found = kept.of(later)
    assert found is not None
    assert sorted(path.name for path in found.iterdir()) == ["first", "second"]
    # What a trial that runs beside others begins with stays as it is.
    made(tmp_path / "t2", "first")
    kept.keep(pinned, tmp_path / "t2")
    assert kept.of(pinned) == found
    # Other code, and so a directory of its own.
    assert kept.of({**pinned, "cpu-isa": "all capped at the baseline"}) is None
    assert kept.of({**pinned, "thread-count": "1"}) is None


def test_a_trial_that_compiled_nothing_leaves_nothing(tmp_path: Path) -> None:
    kept = Compiled(tmp_path / "kept", ("cpu-isa", "thread-count"))
    kept.keep({}, tmp_path / "t0")
    (tmp_path / "t1" / compiled.DIRECTORY).mkdir(parents=True)
    kept.keep({}, tmp_path / "t1")
    assert kept.of({}) is None


def test_a_trial_writes_into_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in compiled.VARIABLES:
        monkeypatch.setenv(name, "/the/users/own")
    made(tmp_path / "t0", "first")
    kept = tmp_path / "t0" / compiled.DIRECTORY
    (tmp_path / "t1").mkdir()
    compiled.begin(tmp_path / "t1", kept)
    assert compiled.used()
    # What is written there is no line of the program's.
    assert not is_users(str(tmp_path / "t1" / compiled.DIRECTORY / "qj" / "code.py"))
    assert is_users(str(tmp_path / "t1" / "code.py"))
    own = tmp_path / "t1" / compiled.DIRECTORY
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].rstrip(os.sep) == str(own)
    (own / "first").write_text("changed", encoding="utf-8")
    assert (kept / "first").read_text(encoding="utf-8") == "first"
    (tmp_path / "t2").mkdir()
    compiled.begin(tmp_path / "t2", None)
    assert not compiled.used()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.deep
def test_a_later_trial_finds_what_earlier_ones_compiled(
    tmp_path: Path, interpreters: Interpreters, monkeypatch: pytest.MonkeyPatch
) -> None:
    new: list[int] = []
    keep = Compiled.keep

    def counted(kept: Compiled, setting: Mapping[str, str], temporary: Path) -> None:
        before = kept.of(setting)
        known = compiled._files(before) if before else set()
        new.append(len(compiled._files(temporary / compiled.DIRECTORY) - known))
        keep(kept, setting, temporary)

    monkeypatch.setattr(Compiled, "keep", counted)
    # PyTorch makes other code where its algorithms need not be deterministic.
    released = {"nondeterministic-op": nondeterministic_op.RELEASED}
    with lab(tmp_path, interpreters) as one:
        trials = one.one_by_one("compiles", PROGRAM, {}, released, released, steps=2)
    assert {trial.ended.status for trial in trials} == {"ok"}
    assert trials[0].facts.survey["cpu-isa"]["compiled"]
    assert [bool(count) for count in new] == [True, True, False]
