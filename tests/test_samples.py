"""Every sample is audited: its verdict, its sources and its exit code, the clean twins too."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.auditing import REPOSITORY, check
from tests.samples import SAMPLES, Sample

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_sample(sample: Sample, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copy(REPOSITORY / "sample_models" / f"{sample.name}.py", tree)
    audited = check(f"{sample.name}.py:build", cwd=tree, saved=tmp_path / "report.json")
    assert audited.broke == set(sample.broke), audited.terminal
    assert audited.report["verdict"] == sample.verdict
    assert audited.exit_code == sample.exit_code
    assert audited.report["unexplained"] is None


def test_every_sample_is_in_the_table() -> None:
    files = {path.stem for path in (REPOSITORY / "sample_models").glob("*.py")}
    assert {sample.name for sample in SAMPLES} == files - {"__init__"}
