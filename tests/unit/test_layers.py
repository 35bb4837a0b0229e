"""What may import what, as `[tool.importlinter]` in pyproject.toml has it: nothing above, and nothing in a circle."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.auditing import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
LAYERS = """
    [tool.importlinter]
    root_package = "house"

    [[tool.importlinter.contracts]]
    name = "layers"
    type = "layers"
    containers = ["house"]
    exhaustive = true
    layers = ["roof", "rooms", "cellar"]

    [[tool.importlinter.contracts]]
    name = "circles"
    type = "acyclic_siblings"
    ancestors = ["house", "house.**"]
"""


def linted(project: Path) -> tuple[int, str]:
    """The exit status and the words of import-linter on a project."""
    ended = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--no-logo", str(project / "pyproject.toml")],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_imports_point_down_and_in_no_circle() -> None:
    status, said = linted(REPOSITORY)
    assert status == 0, said


@pytest.mark.parametrize(
    ("module", "imports", "named"),
    [
        ("cellar/wine.py", "house.roof", ("house.cellar", "house.roof")),
        ("rooms/kitchen.py", "house.rooms.bath", (".bath", ".kitchen", "in house.rooms")),
        ("shed.py", "os", ("shed",)),
    ],
)
def test_a_module_that_breaks_it_is_named(
    tmp_path: Path, module: str, imports: str, named: tuple[str, ...]
) -> None:
    (tmp_path / "pyproject.toml").write_text(LAYERS, encoding="utf-8")
    files = {
        "__init__.py": "",
        "roof.py": "import house.rooms",
        "rooms/__init__.py": "",
        "rooms/kitchen.py": "",
        "rooms/bath.py": "import house.rooms.kitchen",
        "cellar/__init__.py": "",
        "cellar/wine.py": "",
    }
    for name, text in {**files, module: f"import {imports}"}.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    status, said = linted(tmp_path)
    assert status == 1
    for each in named:
        assert each in said
