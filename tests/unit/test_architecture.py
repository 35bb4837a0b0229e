"""What the pages for contributors name exists: every path, every name in a file, and every layer."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.auditing import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = REPOSITORY / "repro_audit"
PAGES = sorted((REPOSITORY / ".github").glob("*.md"))
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_MENTION = re.compile(r"`([\w./-]+\.\w+|[\w./-]+/)(?::([\w.]+))?`")
_IN_COMMANDS = re.compile(
    r"(?<![\w/.])(?:tests|sample_models|repro_audit|\.ci|\.github)/[\w./-]*\w"
)


def missing(page: str) -> list[str]:
    """What a page names that does not exist."""
    prose = _FENCED.sub("", page)
    commands = "\n".join(_FENCED.findall(page))
    wrong = [found for found in _IN_COMMANDS.findall(commands) if not (REPOSITORY / found).exists()]
    for mention in _MENTION.finditer(prose):
        path, name = mention.groups()
        found = [root / path for root in (PACKAGE, REPOSITORY) if (root / path).exists()]
        is_path = "/" in path or path.endswith((".py", ".md", ".toml", ".json"))
        if is_path and not found:
            wrong.append(path)
        elif name and not (found and name in names(found[0])):
            wrong.append(f"{path}:{name}")
    return wrong


def names(path: Path) -> set[str]:
    """The functions, classes, constants and fields that a file defines, those of classes dotted."""
    return set(_defined(ast.parse(path.read_text(encoding="utf-8")), ""))


def _defined(node: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for each in node.body:
        if isinstance(each, (ast.FunctionDef, ast.ClassDef)):
            yield prefix + each.name
        elif isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            yield prefix + each.target.id
        elif isinstance(each, ast.Assign):
            yield from (prefix + to.id for to in each.targets if isinstance(to, ast.Name))
        if isinstance(each, ast.ClassDef):
            yield from _defined(each, f"{prefix}{each.name}.")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert _MENTION.search(text)
    assert missing(text) == []


def test_what_does_not_exist_is_noticed() -> None:
    page = """
`auditing.py:Audit.report`, `auditing.py:Audit.reported`, `sources/`, `sauces/`, `tests/conftest.py`,
`tests/contest.py`, and `facts.json:x`; `1.5` and `a.b` are no paths.

```sh
python -m pytest tests/conftest.py tests/contests.py
```
"""
    assert missing(page) == [
        "tests/contests.py",
        "auditing.py:Audit.reported",
        "sauces/",
        "tests/contest.py",
        "facts.json",
    ]


def test_every_layer_is_told() -> None:
    page = (REPOSITORY / ".github" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    told = re.findall(r"`([\w/.]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)))
    parts = {
        path.name + "/" * path.is_dir()
        for path in PACKAGE.iterdir()
        if path.name not in {"__init__.py", "__pycache__", "py.typed"}
    }
    assert parts - set(told) == set()
