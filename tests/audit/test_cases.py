"""Programs that audits once got wrong, each with its truth."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

import pytest

from repro_audit.sources import built_in
from tests.auditing import Audited, check
from tests.truths import PROGRAMS, TRUTHS, Truth

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_interpreters")


@pytest.mark.parametrize("truth", [t for t in TRUTHS if not t.deep], ids=lambda truth: truth.id)
def test_case(truth: Truth, tmp_path: Path) -> None:
    if truth.missing:
        pytest.skip(f"the program needs {', '.join(truth.missing)}")
    tree = tmp_path / "tree"
    shutil.copytree(PROGRAMS / truth.case, tree)
    audited = check(
        truth.target,
        *truth.options,
        cwd=tree,
        saved=tmp_path / "report.json",
        baseline=truth.baseline,
    )
    assert truth.wrong(audited) == [], audited.terminal


def test_every_case_has_a_truth() -> None:
    programs = {path.parent.name for path in PROGRAMS.glob("*/*.py")}
    assert {truth.case for truth in TRUTHS} == programs


def test_truths_name_sources_that_exist() -> None:
    named = {name for t in TRUTHS for name in (*t.broke, *t.allowed, *t.held, *t.fix)}
    assert named <= set(built_in())


def test_a_wrong_report_is_noticed() -> None:
    truth = Truth(case="", target="", exit_code=0, broke={"clock": [3]}, says=("certainly",))
    location = {"file": "train.py", "line": 13}
    broke = {"id": "clock", "status": "broke", "divergence": {"location": location}}
    report = {"sources": [broke], "unexplained": None, "trials": []}
    right = Audited(exit_code=0, report=report, terminal="most  certainly")
    blamed = "clock blames train.py:13, not one of :3"
    assert truth.wrong(right) == [blamed]
    accused = dataclasses.replace(truth, broke={"num-workers": []}, never=("most",))
    assert accused.wrong(right) == ["accused: clock", "overlooked: num-workers", "said: 'most'"]
