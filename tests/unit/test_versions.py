"""The versions that are said to be tested, and the note about others."""

from __future__ import annotations

import re

import pytest

from repro_audit.findings import summary
from tests.auditing import REPOSITORY


@pytest.mark.parametrize("torch", ["2.8.0", "2.13.0+cpu", "2.14.1"])
def test_nothing_is_said_of_versions_that_were_tested(torch: str) -> None:
    assert summary.untested(torch, (3, 11)) == ""


def test_versions_outside_are_named() -> None:
    said = summary.untested("2.15.0+cu130", (3, 14))
    assert said == (
        "repro-audit was not tested with torch 2.15.0+cu130 (2.8 to 2.14 were) nor with Python 3.14 (3.10 to 3.13 were)"
    )
    assert "torch" not in summary.untested("2.13.0", (3, 14))
    assert "Python" not in summary.untested("2.7.1", (3, 10))


def test_the_package_asks_for_what_was_tested() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    oldest = re.search(r'"torch>=(\d+)\.(\d+),', text)
    assert oldest
    assert (int(oldest[1]), int(oldest[2])) == summary.TESTED_TORCH[0]
    python = re.search(r'requires-python = ">=(\d+)\.(\d+)"', text)
    assert python
    assert (int(python[1]), int(python[2])) == summary.TESTED_PYTHON[0]
    pairs = (REPOSITORY / ".ci" / "matrix").read_text(encoding="utf-8")
    for version in summary.TESTED_TORCH:
        assert f":{version[0]}.{version[1]}." in pairs
