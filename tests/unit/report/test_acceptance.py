"""What is accepted is still told, and no longer decides."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from repro_audit.cli.acceptances import keep
from repro_audit.config import load
from repro_audit.errors import UsageError
from repro_audit.report import as_text, junit, plain, verdict
from repro_audit.report.acceptance import IN_BASELINE, accept
from repro_audit.report.model import SourceStatus
from repro_audit.source import Scope
from tests.report_models import BROKEN, NUM_WORKERS, RACE

if TYPE_CHECKING:
    from pathlib import Path

    from repro_audit.report.model import Report, SourceResult

STRICT = replace(BROKEN, require=Scope.SETTINGS)
"""`nondeterministic-op` breaks rerun, `num-workers` settings."""


def with_source(report: Report, source: SourceResult) -> Report:
    return replace(
        report, sources=tuple(source if s.id == source.id else s for s in report.sources)
    )


def test_the_verdict_passes_over_what_is_accepted() -> None:
    assert accept(STRICT, {"num-workers": "fixed at 4"}).exit_code == 1
    found = accept(STRICT, {"num-workers": "fixed at 4", "nondeterministic-op": "a known race"})
    assert found.exit_code == 0
    assert "but for what is accepted" in verdict.said(found)
    assert "num-workers, which is accepted" in verdict.because(found, Scope.SETTINGS)
    page = " ".join(as_text.render(found).split())
    assert "num-workers breaks settings, proven; fix verified; accepted: fixed at 4" in page
    assert {each.severity for each in plain.findings(found)} == {plain.Severity.NOTE}
    assert "<failure" in junit.render(STRICT)
    assert "<failure" not in junit.render(found)


def test_what_did_not_break_is_told() -> None:
    found = accept(BROKEN, {"hash-seed": "no sets here"})
    assert found.decision == BROKEN.decision
    assert "hash-seed is accepted, and did not differ" in found.notes
    held = next(source for source in BROKEN.sources if source.id == "hash-seed")
    untried = with_source(BROKEN, replace(held, status=SourceStatus.NOT_EXERCISED))
    assert "hash-seed is accepted, and was not tried" in accept(untried, {"hash-seed": "…"}).notes


def test_a_baseline_accepts_what_it_has_at_the_same_place() -> None:
    found = accept(STRICT, {}, baseline=STRICT)
    assert (found.exit_code, {source.accepted for source in found.accepted}) == (0, {IN_BASELINE})
    assert NUM_WORKERS.divergence is not None
    cause = NUM_WORKERS.divergence.cause
    assert cause is not None
    assert cause.location is not None
    lower = replace(cause.location, line=99)
    other = replace(cause.location, code="x + np.random.normal()")
    for location, code in ((lower, 0), (other, 1)):
        divergence = replace(NUM_WORKERS.divergence, cause=replace(cause, location=location))
        now = with_source(STRICT, replace(NUM_WORKERS, divergence=divergence))
        assert accept(now, {}, baseline=STRICT).exit_code == code
    assert RACE.id in {source.id for source in found.accepted}


PROJECT = """\
# Mine.
[project]  # the name
name = "x"

[tool.repro-audit]
steps = 4 # few
"""


@pytest.mark.parametrize("content", [None, "", PROJECT, "[tool.ruff]\nline-length = 3"])
def test_a_reason_is_kept_and_nothing_else_changes(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    if content is not None:
        path.write_text(content)
    keep(["clock"], 'it "logs"', tmp_path)
    assert path.read_text().startswith(content or "")
    keep(["hash-seed", "clock"], "later", tmp_path)
    assert load(tmp_path).accept == {"clock": "later", "hash-seed": "later"}
    assert load(tmp_path).flags == ({"steps": 4} if content is PROJECT else {})


@pytest.mark.parametrize(
    ("ids", "reason", "said"),
    [
        (["clock"], " ", "no reason is given"),
        ([], "why", "no source is given"),
        (["clok"], "why", "no source 'clok'"),
    ],
)
def test_a_reason_needs_a_source_and_a_source_a_reason(
    ids: list[str], reason: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        keep(ids, reason, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_file_that_is_no_toml_stays(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool")
    with pytest.raises(UsageError, match="can not be"):
        keep(["clock"], "why", tmp_path)
    assert (tmp_path / "pyproject.toml").read_text() == "[tool"
