"""A new user's path, without the install: each step runs what the step before printed."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from repro_audit.cli.delivery import _next_step
from repro_audit.config import settle
from tests.benchmarks.first_path import Step, fix, said, this_tree, walked
from tests.report_models import BROKEN, CLEAN

if TYPE_CHECKING:
    from pathlib import Path

    from repro_audit.report.model import Report


def test_each_step_says_what_comes_next(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    flags = "--only os-entropy --steps 2"
    # What the gate runs, tests/unit/cli/test_recipes.py does too.
    steps = list(islice(walked(project, this_tree(tmp_path / "bin"), flags), 6))
    assert [(step.what, step.exit_code) for step in steps] == [
        ("audit", 1),
        ("see the fix", 1),
        ("apply it", 0),
        ("audit again", 0),
        ("see the gate", 0),
        ("write it", 0),
    ], "\n".join(step.printed for step in steps)
    # On stderr, before the report: that it is proven, and its line once that is found.
    assert re.search(r"^✗ os-entropy breaks rerun, proven in", steps[0].printed, re.MULTILINE)
    assert "\n→ os-entropy: train.py:6  rng = np.random.default_rng()\n" in steps[0].printed
    assert "default_rng(0)" in (project / "train.py").read_text()
    assert "tool.repro-audit" in (project / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("report", "table", "on_ci", "told"),
    [
        (CLEAN, "", "", "repro-audit init train.py:build  writes a check like this one for CI"),
        (CLEAN, "[tool.repro-audit]\nsteps = 8\n", "", ""),
        (CLEAN, "", "true", ""),
        (BROKEN, "", "", ""),
    ],
)
def test_of_ci_is_told_who_has_none_and_something_to_keep(
    report: Report,
    table: str,
    on_ci: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text(table)
    monkeypatch.setenv("CI", on_ci)
    assert _next_step(report, settle({}, tmp_path)) == told


def test_a_step_that_does_not_is_noticed() -> None:
    step = Step(what="audit", command="check", exit_code=1, printed="✗ broken\n", seconds=1.0)
    with pytest.raises(ValueError, match="'check' does not say what comes next"):
        said(r"^ +next +(.*)$", step)
    with pytest.raises(ValueError, match="does not say what comes next"):
        fix(step)
