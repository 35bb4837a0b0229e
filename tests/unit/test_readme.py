"""The README's tables and commands follow from the code."""

from __future__ import annotations

import re

from repro_audit.sources import catalogue
from tests.auditing import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_table_of_sources_is_the_catalogue() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([a-z-]+) \| (.*) \|$", README, re.MULTILINE)
    assert [row for row in rows if row[0] in catalogue()] == [
        (source.id, source.scope.value.replace("none", "-"), source.title)
        for source in catalogue().values()
    ]


def test_commands_name_files_that_exist() -> None:
    samples = re.findall(r"sample_models/\w+\.py", README)
    assert samples
    assert all((REPOSITORY / sample).exists() for sample in samples)
    assert "@@" not in README
