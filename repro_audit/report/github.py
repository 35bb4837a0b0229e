"""Workflow commands of GitHub Actions: an annotation a finding, at the user's line, and one for the verdict."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from repro_audit.report import text
from repro_audit.report import verdict as wording
from repro_audit.report.model import Outcome, Report
from repro_audit.report.plain import Finding, Severity, findings, of_failure

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
_OF_VERDICTS = {Outcome.REPRODUCIBLE: "notice", Outcome.INCONCLUSIVE: "warning"}
_IN_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_IN_PROPERTIES = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})
"""https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts"""


def render(report: Report, below: str = "") -> str:
    """The commands, a line each.

    Args:
        report: what was found.
        below: the directory that the audit was started in, relative to the root of the repository.
    """
    return "".join(f"{line}\n" for line in _commands(report, below))


def _commands(report: Report, below: str) -> Iterator[str]:
    said = [wording.said(report), *(of_failure(report.failure) if report.failure else ())]
    said += [each for each in (report.inconclusive, report.nothing_at_stake) if each is not None]
    name = _OF_VERDICTS.get(report.verdict, "error")
    yield _command(name, {"title": "repro-audit"}, said)
    for finding in findings(report):
        yield _command(_COMMANDS[finding.severity], _properties(finding, below), finding.said)


def _properties(finding: Finding, below: str) -> dict[str, str]:
    title = {"title": f"{finding.id} {finding.breaks}"}
    where = finding.location
    if where is None:
        return title
    # A notebook has no line that an annotation could stand at; the message names the cell.
    line = {"line": str(where.line)} if where.cell is None else {}
    return {"file": os.path.normpath(Path(below, where.file)), **line, **title}


def _command(name: str, properties: dict[str, str], said: list[str]) -> str:
    pairs = ",".join(
        f"{key}={text.line(value).translate(_IN_PROPERTIES)}" for key, value in properties.items()
    )
    message = text.block("\n".join(said))
    return f"::{name} {pairs}::{message.translate(_IN_DATA)}"
