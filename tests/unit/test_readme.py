"""The README's tables and commands follow from the code."""

from __future__ import annotations

import re

import pytest

from tests.auditing import REPOSITORY
from tests.readme import README, rewritten

TEXT = README.read_text(encoding="utf-8")


def test_the_table_of_sources_is_the_catalogue() -> None:
    assert rewritten(TEXT) == TEXT, "write it anew with `python -m tests.readme`"


def test_a_table_that_lags_behind_is_noticed() -> None:
    row = "| `hash-seed` | rerun |"
    assert row in TEXT
    assert rewritten(TEXT.replace(row, "| `hash-seeds` | rerun |")) == TEXT
    with pytest.raises(ValueError, match="0 tables"):
        rewritten(TEXT.replace("| id | breaks | what it is |", ""))


def test_commands_name_files_that_exist() -> None:
    samples = re.findall(r"sample_models/\w+\.py", TEXT)
    assert samples
    assert all((REPOSITORY / sample).exists() for sample in samples)
    assert "@@" not in TEXT
