"""The catalogue is derived from its files, and every source documents itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from repro_audit import sources
from repro_audit.source import Levels, Scope, Source
from repro_audit.storage.facts import Facts
from tests.auditing import REPOSITORY, environment

SECTIONS = (
    "## What it does",
    "## Why it breaks reproducibility",
    "## Example",
    "## Use instead",
    "## References",
)


def test_every_file_is_a_source() -> None:
    files = Path(sources.__file__).parent.glob("[!_]*.py")
    assert set(sources.built_in()) == {path.stem.replace("_", "-") for path in files}


def test_order_is_by_scope_then_id() -> None:
    order = list(Scope)
    keys = [(order.index(source.scope), source.id) for source in sources.built_in().values()]
    assert keys == sorted(keys)


@pytest.mark.parametrize("source", sources.catalogue().values(), ids=lambda source: source.id)
def test_documentation(source: Source) -> None:
    doc = source.doc or ""
    places = [doc.find(section) for section in SECTIONS]
    assert -1 not in places
    assert places == sorted(places)
    assert source.title
    assert "\n" not in source.title
    assert doc.count("```python") >= 2
    assert "https://" in doc[places[-1] :]


@pytest.mark.parametrize("source", sources.catalogue().values(), ids=lambda source: source.id)
def test_levels_never_repeat_the_pinned_one(source: Source) -> None:
    answer = source.levels(Facts(loaders=({"num_workers": 3},), written=("a",), cuda="a device"))
    if isinstance(answer, Levels):
        assert source.pinned not in answer.varied
        assert len(set(answer.varied)) == len(answer.varied)
    else:
        assert answer


@pytest.mark.parametrize("source", sources.catalogue().values(), ids=lambda source: source.id)
def test_snippets_fit_the_terminal(source: Source) -> None:
    fix = source.fix(Facts(threads=2))
    assert fix.summary
    assert all(len(line) <= 76 for line in fix.snippet.splitlines())
    compile(fix.snippet, source.id, "exec")


@pytest.mark.audit
def test_neither_the_catalogue_nor_the_command_imports_torch() -> None:
    code = (
        "import sys; from repro_audit import cli, audit, sources; sources.catalogue();"
        "assert 'torch' not in sys.modules; import torch; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environment(), check=True)
