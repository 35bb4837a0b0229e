"""cublas-workspace: programs that look at the variable, and the advice that depends on PyTorch's version."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.sources import cublas_workspace
from repro_audit.storage.facts import Facts
from tests.auditing import check, write_target

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_interpreters")

HEAD = """
    import os

    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def parts(shift=0.0):
        x = torch.rand(16, 3) + shift
        return nn.Linear(3, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
"""
LOOKS = """
    def build(seed):
        torch.manual_seed(seed)
        return parts(0.5 if "CUBLAS_WORKSPACE_CONFIG" in os.environ else 0.0)
"""
OTHER = """
    def build(seed):
        torch.manual_seed(seed)
        return parts(np.random.rand() + ("CUBLAS_WORKSPACE_CONFIG" in os.environ))
"""
CLEAN = """
    def build(seed):
        torch.manual_seed(seed)
        return parts()
"""
ONLY = ("--steps", "4", "--only", "cublas-workspace")


def test_alone(tmp_path: Path) -> None:
    tree = write_target(tmp_path, HEAD + LOOKS).parent
    audited = check("train.py:build", "--steps", "4", cwd=tree, saved=tmp_path / "report.json")
    assert audited.broke == {"cublas-workspace"}
    assert audited.exit_code == 0
    assert audited.source("cublas-workspace")["confidence"] == "proven"


def test_beside_another_cause(tmp_path: Path) -> None:
    tree = write_target(tmp_path, HEAD + OTHER).parent
    options = (*ONLY, "--only", "numpy-rng")
    audited = check("train.py:build", *options, cwd=tree, saved=tmp_path / "report.json")
    assert audited.broke == {"cublas-workspace", "numpy-rng"}


def test_clean(tmp_path: Path) -> None:
    tree = write_target(tmp_path, HEAD + CLEAN).parent
    audited = check("train.py:build", *ONLY, cwd=tree, saved=tmp_path / "report.json")
    assert audited.broke == set()
    assert audited.source("cublas-workspace")["status"] in {"not-exercised", "held"}


# The source by itself


def test_apply_sets_and_undoes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = cublas_workspace.VARIABLE
    trial = TrialContext(seed=0, setting={}, directory=tmp_path, root=tmp_path)
    monkeypatch.delenv(name, raising=False)
    with cublas_workspace.apply(cublas_workspace.PINNED, trial):
        assert os.environ[name] == ":4096:8"
    assert name not in os.environ
    monkeypatch.setenv(name, ":16:8")
    with cublas_workspace.apply(cublas_workspace.UNSET, trial):
        assert name not in os.environ
    with cublas_workspace.apply(cublas_workspace.AS_FOUND, trial):
        assert os.environ[name] == ":16:8"
    assert os.environ[name] == ":16:8"


def test_held_only_where_a_device_ran() -> None:
    held = Judgement(id="cublas-workspace", status="held")
    assert cublas_workspace.judge(held, Facts()).status == "not-exercised"
    assert cublas_workspace.judge(held, Facts(cuda="a device")).status == "held"


def test_the_advice_depends_on_the_version() -> None:
    def summary(version: str) -> str:
        return cublas_workspace.fix(Facts(torch=version)).summary

    assert "raises an error" in summary("2.9.1+cu128")
    assert "no longer" in summary("2.10.0")
    assert "no longer" in summary("2.13.0+cpu")
    assert "raises" not in summary("")
