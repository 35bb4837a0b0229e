"""Programs of the frameworks that people train with, as scripts: each with one cause, and its twin without it."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.auditing import check
from tests.samples import PROGRAMS, expected

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.frameworks
SCRIPTS = sorted((PROGRAMS / "scripts" / "frameworks").glob("*.py"))
NEEDED = re.compile(r"^(?:from|import) (\w+)", re.MULTILINE)
TRIED = ("python-rng", "numpy-rng", "torch-rng", "os-entropy")
"""Tried on all programs, so that none of them is blamed for another."""


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_the_cause_in_a_framework(script: Path, tmp_path: Path) -> None:
    """In a process of its own: its trials are forked from interpreters that have imported the framework."""
    text = script.read_text(encoding="utf-8")
    for package in NEEDED.findall(text):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    truth = expected(text)
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copy(script, tree)
    names = dict.fromkeys((*TRIED, *truth["broke"]))
    only = [word for name in names for word in ("--only", name)]
    audited = check(*only, script.name, cwd=tree, saved=tmp_path / "report.json")
    broke = [source for source in audited.report["sources"] if source["status"] == "broke"]
    assert [source["id"] for source in broke] == truth["broke"], audited.terminal
    assert audited.report["unexplained"] is None, audited.terminal
    assert [source["divergence"]["location"]["line"] for source in broke] == (
        [truth["line"]] if "line" in truth else []
    ), audited.terminal
    assert audited.exit_code == (1 if broke else 0)
