"""No module outside of the catalogue names a source: what one needs is said by a field of `Source` or `Levels`."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from repro_audit.sources import built_in
from tests.auditing import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = REPOSITORY / "repro_audit"
APART = {"sources", "torch_internals"}
"""The catalogue, and the table that says what is lost without an internal of PyTorch."""


def named(text: str) -> set[str]:
    """The sources that a module imports, or has the id of in a string that is no documentation."""
    tree = ast.parse(text)
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "repro_audit.sources"
        ):
            found |= {(node.module or "").rpartition(".")[2], *(name.name for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name.rpartition(".")[2] for name in node.names}
        elif isinstance(node, ast.Constant) and id(node) not in documentation:
            found |= set(re.findall(r"[a-z]+(?:-[a-z]+)+", str(node.value)))
    return {name.replace("_", "-") for name in found} & set(built_in()) - {"clock"}


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if not APART & set(path.parts)],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_no_source_is_named(path: Path) -> None:
    assert not named(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "line",
    [
        "from repro_audit.sources import seed_effect",
        "from repro_audit.sources.seed_effect import SOURCE",
        "import repro_audit.sources.seed_effect",
        "SEEDS = ('seed-effect',)",
    ],
)
def test_a_module_that_names_one_is_noticed(line: str) -> None:
    assert named(f'"""The documentation may speak of `seed-effect`."""\n{line}') == {"seed-effect"}
