"""SARIF 2.1.0, for code scanning: a result a finding, at the user's line, with the way to the loss as a code flow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from repro_audit.report import explanation, text
from repro_audit.report import verdict as wording
from repro_audit.report.markdown import fenced, prose
from repro_audit.report.model import Cause, Location, Outcome, Report, SourceStatus
from repro_audit.report.plain import Finding, findings, of_failure, program
from repro_audit.report.results import by_reason
from repro_audit.sources import catalogue

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
FINGERPRINT = "reproAudit/v1"
_BASE = "%SRCROOT%"
_DESCRIPTION_LIMIT = 1000
"""GitHub takes 1,024 characters."""
_LINK = re.compile(r"\[([^\[\]]*)\]\(")

Json = dict[str, Any]


def render(report: Report) -> str:
    """The log, as ASCII text."""
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(report)]}
    return json.dumps(log, indent=2) + "\n"


def _run(report: Report) -> Json:
    found = findings(report)
    return {
        "tool": {
            "driver": {
                "name": "repro-audit",
                "version": text.line(report.version),
                "rules": [_rule(finding) for finding in found],
            }
        },
        "invocations": [_invocation(report)],
        "originalUriBaseIds": {
            _BASE: {"description": {"text": "the directory that the audit was started in"}}
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(number, each, report) for number, each in enumerate(found)],
        "properties": {
            "verdict": report.verdict.value,
            "require": report.require.value,
            "promises": {
                scope.value: status.value for scope, status in report.decision.scopes.items()
            },
            "sources": {source.id: source.status.value for source in report.sources},
        },
    }


def _invocation(report: Report) -> Json:
    return {
        "executionSuccessful": report.verdict is not Outcome.TARGET_FAILED,
        "exitCode": report.exit_code,
        "exitCodeDescription": text.line(wording.said(report)),
        "toolExecutionNotifications": [
            {"level": level, "message": _message(said)} for level, said in _notifications(report)
        ],
    }


def _notifications(report: Report) -> Iterator[tuple[str, str]]:
    """What stood in the way of the audit, or of a part of it."""
    if report.failure is not None:
        traceback = text.block(report.failure.traceback)
        yield "error", "\n".join([*of_failure(report.failure), *([traceback] if traceback else [])])
        return
    for reason in (report.inconclusive, report.nothing_at_stake):
        if reason is not None:
            yield "error", text.line(reason)
    for status, level in ((SourceStatus.ERROR, "warning"), (SourceStatus.NOT_EXERCISED, "note")):
        for same in by_reason(report.sources, status).values():
            ids = text.listed(source.id for source in same)
            yield level, text.line(f"{ids} not tried: {same[0].reason}")


def _rule(finding: Finding) -> Json:
    source = catalogue().get(finding.id)
    doc = (source.doc or "").strip() if source is not None else finding.title
    why = explanation.sections(doc).get("Why it breaks reproducibility", finding.title)
    return {
        "id": finding.id,
        "name": finding.id.title().replace("-", ""),
        "shortDescription": {"text": text.shortened(finding.title, _DESCRIPTION_LIMIT)},
        "fullDescription": {"text": text.shortened(" ".join(why.split()), _DESCRIPTION_LIMIT)},
        "help": {"text": doc, "markdown": doc if source is not None else prose(doc)},
        "properties": {"tags": ["reproducibility", finding.scope.value]},
    }


def _result(number: int, finding: Finding, report: Report) -> Json:
    divergence, fix = finding.divergence, finding.fix
    code = finding.snippet
    title = f"{finding.id} {finding.breaks}"
    shown = [*map(prose, (title, *finding.sentences)), *([fenced(code)] if code else [])]
    result: Json = {
        "ruleId": finding.id,
        "ruleIndex": number,
        "level": finding.severity.value,
        "message": {
            **_message("\n".join((title, *finding.said))),
            "markdown": "\n\n".join(shown),
        },
        "locations": _locations(finding, report),
        "partialFingerprints": {FINGERPRINT: finding.fingerprint(report.target)},
    }
    if divergence is not None and (divergence.cause is not None or divergence.way):
        result["codeFlows"] = [{"threadFlows": [{"locations": [*_flow(finding, report)]}]}]
    if divergence is not None and divergence.cause is not None:
        others = (other for other in divergence.cause.also if other.location is not None)
        result["relatedLocations"] = [*map(_beginning, others)]
    if fix is not None:
        summary = text.line(fix.summary)
        result["properties"] = {
            "fix": {"summary": summary, "snippet": code, "verified": fix.verified}
        }
    return result


def _locations(finding: Finding, report: Report) -> list[Json]:
    """The line to blame, or at least the program."""
    if finding.location is not None:
        return [_line(finding.location)]
    file = program(report.target)
    return [] if file is None else [{"physicalLocation": {"artifactLocation": _artifact(file)}}]


def _flow(finding: Finding, report: Report) -> Iterator[Json]:
    """From the cause to the loss; of what comes after the cause, the file is known but not the line."""
    assert finding.divergence is not None  # noqa: S101  # the caller asked
    if finding.divergence.cause is not None:
        yield {"location": _beginning(finding.divergence.cause)}
    file = finding.location.file if finding.location is not None else program(report.target)
    artifact = {} if file is None else {"artifactLocation": _artifact(file)}
    for link in finding.divergence.way:
        what = text.line(link.what)
        location: Json = {
            "logicalLocations": [{"name": what, "kind": "variable"}],
            "message": _message(f"{what} differs ({text.line(link.where)})"),
        }
        if artifact:
            location["physicalLocation"] = artifact
        yield {"location": location}


def _beginning(cause: Cause) -> Json:
    located = _line(cause.location) if cause.location is not None else {}
    return {**located, "message": _message(text.line(cause.what))}


def _line(location: Location) -> Json:
    """A line of a file; of a notebook, whose lines are not those of the file, the cell by its name."""
    physical: Json = {"artifactLocation": _artifact(location.file)}
    found: Json = {"physicalLocation": physical}
    names = []
    if location.cell is None:
        physical["region"] = {"startLine": location.line}
        if location.code:
            physical["region"]["snippet"] = {"text": text.line(location.code)}
    else:
        names.append({"fullyQualifiedName": text.line(location.place), "kind": "module"})
    if location.function:
        names.append({"name": text.line(location.function), "kind": "function"})
    if names:
        found["logicalLocations"] = names
    return found


def _artifact(file: str) -> Json:
    uri = quote(file, errors="backslashreplace")
    return {"uri": f"file://{uri}"} if file.startswith("/") else {"uri": uri, "uriBaseId": _BASE}


def _message(content: str) -> Json:
    """A message without what SARIF takes for a link."""
    return {"text": _LINK.sub(r"\\[\1\\](", content)}
