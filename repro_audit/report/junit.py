"""JUnit XML, as Jenkins and GitLab read it: a test case a source, and one for the program itself."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree as ET

from repro_audit.report import text
from repro_audit.report import verdict as wording
from repro_audit.report.model import Outcome, Report, SourceResult, SourceStatus
from repro_audit.report.plain import Finding, findings, of_failure
from repro_audit.report.results import word
from repro_audit.source import Scope

PROGRAM = "program"
"""The name of the test case that the program can be judged at all."""
_NO_XML = re.compile("[\ufffe\uffff]")
"""What XML 1.0 does not allow, of what `text` lets through."""


def render(report: Report) -> str:
    """The document, as ASCII text."""
    found = {finding.id: finding for finding in findings(report)}
    cases = [_program(report)]
    cases += [_case(source, found.pop(source.id, None)) for source in report.sources]
    cases += [_broken(_named(each.id, each.scope), each) for each in found.values()]
    counts = {
        "tests": str(len(cases)),
        "failures": _count(cases, "failure"),
        "errors": _count(cases, "error"),
    }
    time = f"{report.seconds:.3f}"
    root = ET.Element("testsuites", {"name": "repro-audit", **counts, "time": time})
    suite = ET.SubElement(
        root,
        "testsuite",
        {
            "name": _safe(report.target.command),
            **counts,
            "skipped": _count(cases, "skipped"),
            "time": time,
        },
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report).items():
        ET.SubElement(properties, "property", {"name": name, "value": _safe(value)})
    suite.extend(cases)
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="us-ascii")
    return written.decode("ascii") + "\n"


def _properties(report: Report) -> dict[str, str]:
    promises = {
        f"promise.{scope.value}": status.value for scope, status in report.decision.scopes.items()
    }
    return {
        "verdict": report.verdict.value,
        "exit_code": str(report.exit_code),
        "require": report.require.value,
        **promises,
        "version": report.version,
    }


def _program(report: Report) -> ET.Element:
    case = ET.Element("testcase", {"classname": "repro-audit", "name": PROGRAM})
    if report.failure is not None:
        said = [*of_failure(report.failure)]
        whole = "\n".join([*said, text.block(report.failure.traceback)])
        _add(case, "error", report.verdict.value, said[0], whole)
    elif report.verdict is Outcome.INCONCLUSIVE:
        reasons = (report.inconclusive, report.nothing_at_stake)
        why = [reason for reason in reasons if reason is not None]
        _add(case, "error", report.verdict.value, wording.said(report), "\n".join(why))
    return case


def _case(source: SourceResult, finding: Finding | None) -> ET.Element:
    case = _named(source.id, source.scope)
    if finding is not None and not source.accepted:
        return _broken(case, finding)
    if finding is not None:
        said = f"{finding.id} {finding.breaks}"
        ET.SubElement(case, "skipped", {"message": _safe(said)})
    elif source.status is SourceStatus.ERROR:
        _add(case, "error", "not judged", source.reason, source.title)
    elif source.status is SourceStatus.NOT_EXERCISED:
        ET.SubElement(case, "skipped", {"message": _safe(source.reason)})
    elif source.reason:
        ET.SubElement(case, "system-out").text = _safe(f"{word(source)}: {source.reason}")
    return case


def _broken(case: ET.Element, finding: Finding) -> ET.Element:
    said = "\n".join(finding.said)
    _add(case, "failure", finding.severity.value, f"{finding.id} {finding.breaks}", said)
    return case


def _named(name: str, scope: Scope) -> ET.Element:
    classname = "repro-audit" if scope is Scope.NONE else f"repro-audit.{scope.value}"
    return ET.Element("testcase", {"classname": classname, "name": _safe(name)})


def _add(case: ET.Element, tag: str, kind: str, message: str, content: str) -> None:
    element = ET.SubElement(case, tag, {"type": kind, "message": _safe(message)})
    element.text = "\n".join(map(_safe, content.split("\n")))


def _count(cases: Iterable[ET.Element], tag: str) -> str:
    return str(sum(case.find(tag) is not None for case in cases))


def _safe(content: str) -> str:
    """One line that XML may hold."""
    return _NO_XML.sub(lambda found: ascii(found[0])[1:-1], text.line(content, text.BLOCK_LIMIT))
