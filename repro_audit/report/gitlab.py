"""GitLab's report of code quality: an entry a finding, and one where there is no verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from repro_audit.report import text
from repro_audit.report import verdict as wording
from repro_audit.report.model import Outcome, Report
from repro_audit.report.plain import Severity, findings, of_failure, program

_SEVERITIES = {Severity.ERROR: "critical", Severity.WARNING: "minor", Severity.NOTE: "info"}
_NO_VERDICT = {Outcome.TARGET_FAILED: "blocker", Outcome.INCONCLUSIVE: "major"}


def render(report: Report) -> str:
    """The entries, as ASCII text."""
    return json.dumps([*_entries(report)], indent=2) + "\n"


def _entries(report: Report) -> Iterator[dict[str, object]]:
    # GitLab leaves out entries without a path and a line.
    path = program(report.target) or report.target.spec
    if report.verdict in _NO_VERDICT:
        said = [wording.said(report), *(of_failure(report.failure) if report.failure else ())]
        name = report.verdict.value
        yield {
            "description": "\n".join(map(text.line, said)),
            "check_name": name,
            "fingerprint": hashlib.sha256(f"{name} {path!a}".encode()).hexdigest()[:32],
            "severity": _NO_VERDICT[report.verdict],
            "location": _location(path, 1),
        }
    for finding in findings(report):
        where = finding.location
        # In a notebook, lines are those of cells.
        line = where.line if where is not None and where.cell is None else 1
        yield {
            "description": "\n".join([f"{finding.id} {finding.breaks}", *finding.said]),
            "check_name": finding.id,
            "fingerprint": finding.fingerprint(report.target),
            "severity": _SEVERITIES[finding.severity],
            "location": _location(path if where is None else where.file, line),
        }


def _location(file: str, line: int) -> dict[str, object]:
    return {"path": text.line(file), "lines": {"begin": line}}
