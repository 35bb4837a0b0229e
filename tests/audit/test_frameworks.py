"""Programs of the frameworks that people train with, as scripts: each with one cause, and its twin without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests import scripts
from tests.auditing import check

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.frameworks
SCRIPTS = sorted((scripts.SCRIPTS / "frameworks").glob("*.py"))
TRIED = ("python-rng", "numpy-rng", "torch-rng", "os-entropy")
"""Tried on all programs, so that none of them is blamed for another."""


def flags(truth: dict[str, Any]) -> list[str]:
    names = dict.fromkeys((*TRIED, *truth["broke"]))
    return [word for name in names for word in ("--only", name)]


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_the_cause_in_a_framework(script: Path, tmp_path: Path) -> None:
    """In a process of its own: its trials are forked from interpreters that have imported the framework."""
    scripts.assert_found(script, tmp_path, check, flags)
