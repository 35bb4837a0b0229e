"""The scripts in `sample_models/scripts`: what each needs, and that an audit finds the truth that its text tells."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.samples import PROGRAMS, expected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.auditing import Check

SCRIPTS = PROGRAMS / "scripts"
NEEDED = re.compile(r"^(?:from|import) (\w+)", re.MULTILINE)


def assert_found(
    script: Path,
    directory: Path,
    check: Check,
    flags: Callable[[dict[str, Any]], Sequence[str]],
    function: str = "",
) -> None:
    """Audit a script in a new tree, with the flags that its truth asks for; skipped where a package is missing.

    Given a function of it, that is the target, in build mode.
    """
    text = script.read_text(encoding="utf-8")
    for package in NEEDED.findall(text):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    truth = expected(text)
    tree = directory / "tree"
    tree.mkdir()
    shutil.copy(script, tree)
    first, *rest = flags(truth)
    target = f"{script.name}:{function}" if function else script.name
    audited = check(first, *rest, target, cwd=tree, saved=directory / "report.json")
    broke = [source for source in audited.report["sources"] if source["status"] == "broke"]
    assert [source["id"] for source in broke] == truth["broke"], audited.terminal
    assert audited.report["unexplained"] is None, audited.terminal
    assert [source["divergence"]["location"]["line"] for source in broke] == (
        [truth["line"]] if "line" in truth else []
    ), audited.terminal
    assert audited.exit_code == (1 if broke else 0)
