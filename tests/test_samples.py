"""Every sample is audited: its verdict, its sources and its exit code, the clean twins too."""

from __future__ import annotations

import platform
import shutil
from typing import TYPE_CHECKING

import pytest

from repro_audit.sources import cpu_isa
from tests.auditing import REPOSITORY, check
from tests.samples import SAMPLES, Sample

if TYPE_CHECKING:
    from pathlib import Path

CPU_ISA = cpu_isa.SOURCE.id


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_sample(sample: Sample, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copy(REPOSITORY / "sample_models" / f"{sample.name}.py", tree)
    saved = tmp_path / "report.json"
    audited = check(f"{sample.name}.py:build", cwd=tree, saved=saved, baseline=False)
    emulated = set() if sample.capped else {CPU_ISA}
    assert audited.broke - emulated == set(sample.broke) - emulated, audited.terminal
    if CPU_ISA in sample.broke and platform.machine() in cpu_isa.X86:
        assert CPU_ISA in audited.broke, audited.terminal
    assert audited.report["verdict"] == sample.verdict
    assert audited.exit_code == sample.exit_code
    assert audited.report["unexplained"] is None


def test_every_sample_is_in_the_table() -> None:
    files = {path.stem for path in (REPOSITORY / "sample_models").glob("*.py")}
    assert {sample.name for sample in SAMPLES} == files - {"__init__"}
