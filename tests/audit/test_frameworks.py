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


RETURNED = {
    "trainer.train()": "return trainer",
    "trainer.fit(Regression(), ": "return (trainer, Regression(), ",
}
"""How a program's last line becomes what `build()` may return."""
TRAINERS = [path for path in SCRIPTS if any(last in path.read_text("utf-8") for last in RETURNED)]


def flags(truth: dict[str, Any]) -> list[str]:
    names = dict.fromkeys((*TRIED, *truth["broke"]))
    return [word for name in names for word in ("--only", name)]


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_the_cause_in_a_framework(script: Path, tmp_path: Path) -> None:
    """In a process of its own: its trials are forked from interpreters that have imported the framework."""
    scripts.assert_found(script, tmp_path, check, flags)


@pytest.mark.parametrize("script", TRAINERS, ids=[path.stem for path in TRAINERS])
def test_the_cause_in_a_trainer_that_build_returns(script: Path, tmp_path: Path) -> None:
    text = script.read_text("utf-8")
    for last, returned in RETURNED.items():
        text = text.replace(last, returned)
    returning = tmp_path / script.name
    returning.write_text(text, "utf-8")
    scripts.assert_found(returning, tmp_path, check, flags, function="main")


@pytest.mark.deep
@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_the_cause_in_a_function_that_trains(script: Path, tmp_path: Path) -> None:
    scripts.assert_found(script, tmp_path, check, flags, function="main")
