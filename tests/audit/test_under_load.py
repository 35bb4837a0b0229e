"""No verdict hangs on how busy the machine is: beside busy processes an audit finds the same, later."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.auditing import check
from tests.truths import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("shared_interpreters")

BUSY = os.cpu_count() or 1
SOURCES = ("object-address", "torch-rng")


@contextmanager
def load() -> Iterator[None]:
    """A busy process a core."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(BUSY)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def timeless(report: dict[str, Any]) -> dict[str, Any]:
    """All of a report but its seconds."""
    trials = [{**trial, "seconds": 0} for trial in report["trials"]]
    return {**report, "seconds": 0, "trials": trials}


def test_an_audit_finds_the_same_in_as_many_trials(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(PROGRAMS / "address-order", tree)
    options = [word for name in SOURCES for word in ("--only", name)]
    saved = tmp_path / "report.json"
    idle = check("train.py:build", *options, cwd=tree, saved=saved)
    with load():
        busy = check("train.py:build", *options, cwd=tree, saved=saved)
    assert idle.broke == {"object-address"}
    assert timeless(busy.report) == timeless(idle.report)
