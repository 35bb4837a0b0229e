"""What broke and is accepted: by name and with a reason, or since an earlier report has it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from repro_audit.report.model import Report, SourceStatus
from repro_audit.report.plain import findings

IN_BASELINE = "the baseline has it too"
_UNBROKEN = {
    SourceStatus.HELD: "did not differ",
    SourceStatus.DELEGATED: "is delegated",
    SourceStatus.ERROR: "could not be tried",
}


def accept(report: Report, reasons: Mapping[str, str], baseline: Report | None = None) -> Report:
    """The report, with what is accepted marked so: its verdict and exit code pass that over.

    Args:
        report: of an audit.
        reasons: why a source is accepted, by its id.
        baseline: an earlier report of the same program. What it has is accepted; a source that breaks on another
            line than there is something new, and so is an unexplained difference.
    """
    before = set() if baseline is None else set(_fingerprints(baseline).values())
    same = {name for name, mark in _fingerprints(report).items() if mark in before}
    found = tuple(
        replace(source, accepted=reasons.get(source.id, IN_BASELINE if source.id in same else ""))
        if source.status is SourceStatus.BROKE
        else source
        for source in report.sources
    )
    notes = tuple(
        f"{source.id} is accepted, and {_UNBROKEN.get(source.status, 'was not tried')}"
        for source in found
        if source.id in reasons and not source.accepted
    )
    return replace(report, sources=found, notes=(*report.notes, *notes))


def _fingerprints(report: Report) -> dict[str, str]:
    return {finding.id: finding.fingerprint(report.target) for finding in findings(report)}
