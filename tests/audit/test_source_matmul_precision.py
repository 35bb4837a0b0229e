"""matmul-precision: a program's own precision, a program that looks at its caller's, and one that leaves it to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement, LevelOutcome
from repro_audit.sources import matmul_precision
from repro_audit.storage.facts import Facts
from tests.auditing import check, write_target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from repro_audit.source import Verdict

pytestmark = pytest.mark.usefixtures("shared_interpreters")

onednn: Any = torch.backends.mkldnn  # newer than its types

HEAD = """
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
        return parts(0.5 if torch.backends.cuda.matmul.allow_tf32 else 0.0)
"""
SETS = """
    def build(seed):
        torch.set_float32_matmul_precision("highest")
        torch.manual_seed(seed)
        return parts(0.5 if torch.backends.cuda.matmul.allow_tf32 else 0.0)
"""
OTHER = """
    def build(seed):
        torch.manual_seed(seed)
        tf32 = torch.backends.cudnn.allow_tf32
        return parts(np.random.rand() + (0.5 if tf32 else 0.0))
"""


def test_alone(tmp_path: Path) -> None:
    tree = write_target(tmp_path, HEAD + LOOKS).parent
    saved = tmp_path / "report.json"
    audited = check("train.py:build", "--steps", "4", cwd=tree, saved=saved)
    assert audited.broke == {"matmul-precision"}
    assert audited.exit_code == 0
    source = audited.source("matmul-precision")
    assert source["confidence"] == "proven"
    differed = {level["level"]: level["diverged"] for level in source["levels"]}
    assert differed == {"as written": False, "high": True, "medium": True}


def test_beside_another_cause(tmp_path: Path) -> None:
    tree = write_target(tmp_path, HEAD + OTHER).parent
    options = ("--steps", "4", "--only", "matmul-precision", "--only", "numpy-rng")
    audited = check("train.py:build", *options, cwd=tree, saved=tmp_path / "report.json")
    assert audited.broke == {"matmul-precision", "numpy-rng"}
    assert "as written" in audited.source("matmul-precision")["reason"]


def test_a_program_that_sets_it_is_cleared(tmp_path: Path) -> None:
    tree = write_target(tmp_path, HEAD + SETS).parent
    options = ("--steps", "4", "--only", "matmul-precision", "--require", "settings")
    audited = check("train.py:build", *options, cwd=tree, saved=tmp_path / "report.json")
    assert audited.broke == set()
    assert audited.exit_code == 0


# The source by itself


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    onednn.matmul.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = True


def context(tmp_path: Path) -> TrialContext:
    return TrialContext(seed=0, setting={}, directory=tmp_path, root=tmp_path)


def test_the_pinned_level_wins_over_the_program(tmp_path: Path) -> None:
    trial = context(tmp_path)
    with matmul_precision.apply(matmul_precision.PINNED, trial):
        assert not torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("medium")  # the program, in build()
        trial.built(None)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert onednn.matmul.fp32_precision == "none"


def test_a_lower_level_gives_way_to_the_program(tmp_path: Path) -> None:
    trial = context(tmp_path)
    with matmul_precision.apply(matmul_precision.MEDIUM, trial):
        assert torch.get_float32_matmul_precision() == "medium"
        torch.set_float32_matmul_precision("highest")
        trial.built(None)
        assert torch.get_float32_matmul_precision() == "highest"


def test_as_written_touches_nothing(tmp_path: Path) -> None:
    with matmul_precision.apply(matmul_precision.AS_WRITTEN, context(tmp_path)):
        assert torch.backends.cudnn.allow_tf32


def judged(*diverged: str, obeys: bool, cuda: str = "") -> Verdict:
    levels = tuple(
        LevelOutcome(level=level, diverged=level in diverged, trial="t01", status="ok")
        for level in ("as written", "high", "medium")
    )
    judgement = Judgement(
        id="matmul-precision", status="broke" if diverged else "held", levels=levels
    )
    return matmul_precision.judge(judgement, Facts(survey={"matmul-precision": obeys}, cuda=cuda))


def test_who_is_to_blame() -> None:
    assert judged(obeys=False).status == "not-exercised"
    assert judged(obeys=True).status == "held"
    assert judged(obeys=False, cuda="a device").status == "held"
    assert judged("medium", obeys=True).status == "delegated"
    assert judged("medium", obeys=False).status == "broke"
    assert judged("high", "medium", obeys=True).status == "broke"
    assert judged("as written", "medium", obeys=True).status == "broke"
