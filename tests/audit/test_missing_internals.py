"""An audit under a PyTorch that lacks a private name says so, and never that the target failed by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.auditing import Audited, check, write_target

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def build():
        torch.seed()
        data = TensorDataset(torch.ones(4, 3), torch.ones(4, 1))
        return nn.Linear(3, 1), DataLoader(data, batch_size=2)
"""
SITE = """
import sys
from repro_audit.context.imports import when_imported

def hide():
    owner = {owner}
    del owner.{name}

when_imported("torch", hide)
"""


@pytest.fixture
def audited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Audited:
    """An audit of one source, in interpreters whose torch has lost a name before anything is pinned."""
    owner, name, source = request.param
    (tmp_path / "site").mkdir()
    text = SITE.format(owner=f"sys.modules['torch'].{owner}", name=name)
    (tmp_path / "site" / "sitecustomize.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    program = write_target(tmp_path, PROGRAM)
    return check(
        "train.py:build",
        *("--only", source, "--steps", "2"),
        cwd=program.parent,
        saved=tmp_path / "report.json",
    )


@pytest.mark.parametrize(
    "audited", [("_C._functorch", "peek_interpreter_stack", "torch-rng")], indirect=True
)
def test_what_every_trial_needs_ends_the_audit(audited: Audited) -> None:
    assert audited.exit_code == 70
    assert "torch._C._functorch.peek_interpreter_stack" in "".join(audited.terminal.split())
    assert audited.report == {}


@pytest.mark.parametrize(
    "audited",
    [("utils.data.dataloader._MultiProcessingDataLoaderIter", "_shutdown_workers", "worker-order")],
    indirect=True,
)
def test_a_source_that_needs_it_is_not_exercised(audited: Audited) -> None:
    source = audited.source("worker-order")
    assert source["status"] == "not-exercised"
    assert "_shutdown_workers, which serves to give workers their turns" in source["reason"]


@pytest.mark.parametrize("audited", [("_C", "_get_dispatch_stack_at", "os-entropy")], indirect=True)
def test_a_finding_says_why_there_is_no_closer_look(audited: Audited) -> None:
    words = " ".join(audited.terminal.split())
    assert audited.broke == {"os-entropy"}
    assert "not found: watched op by op, a run failed: PyTorch" in words
    assert "has no torch._C._get_dispatch_stack_at" in words
