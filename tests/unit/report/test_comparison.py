"""A report of two runs says in each format that they are equal, or where they differ; it tells of no promise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import jsonschema
import pytest

from repro_audit.report import as_json, as_text, formats
from repro_audit.report.model import Comparison
from tests.report_models import COMPARED, DIFFERENT, EQUAL, HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

    from syrupy.assertion import SnapshotAssertion


@pytest.mark.parametrize("name", COMPARED)
def test_page(name: str, snapshot: SnapshotAssertion) -> None:
    assert as_text.page(COMPARED[name], width=80) == snapshot


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_format_tells_the_place(name: str) -> None:
    said = formats.FORMATS[name].render(DIFFERENT)
    assert "batch.0" in said
    assert "train.py" in said


@pytest.mark.parametrize("name", ["terminal", "html", "markdown"])
def test_it_tells_of_no_promise(name: str) -> None:
    for report in COMPARED.values():
        said = formats.FORMATS[name].render(report)
        assert "other settings, same machine" not in said
        assert "golden.repro" in said


def test_it_is_read_again(tmp_path: Path) -> None:
    for report in COMPARED.values():
        jsonschema.validate(as_json.document(report), as_json.schema())
        (tmp_path / "report.json").write_text(as_json.render(report))
        found = as_json.read(tmp_path / "report.json")
        assert as_json.render(found) == as_json.render(report)


def test_exit_codes() -> None:
    assert (EQUAL.exit_code, DIFFERENT.exit_code) == (0, 1)


@pytest.mark.parametrize("name", formats.FORMATS)
def test_names_that_mean_harm(name: str) -> None:
    comparison = Comparison(reference=HOSTILE, other=HOSTILE, within=HOSTILE)
    for report in COMPARED.values():
        said = formats.FORMATS[name].render(replace(report, comparison=comparison))
        assert "\x1b" not in said
        assert "\u202e" not in said
