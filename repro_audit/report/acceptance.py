"""What broke and is accepted: by name and with a reason, or since an earlier report has it too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from repro_audit.report.model import SourceStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro_audit.report.model import Location, Report, SourceResult

IN_BASELINE = "the baseline has it too"


def accept(report: Report, reasons: Mapping[str, str], baseline: Report | None = None) -> Report:
    """The report, with what is accepted marked so: its verdict and exit code pass that over.

    Args:
        report: of an audit.
        reasons: why a source is accepted, by its id.
        baseline: an earlier report of the same program. What it has is accepted; a source that breaks on another
            line than there is something new, and so is an unexplained difference.
    """
    known = {} if baseline is None else {each.id: each for each in baseline.sources}
    found = tuple(
        replace(source, accepted=_reason(source, reasons, known.get(source.id)))
        if source.status is SourceStatus.BROKE
        else source
        for source in report.sources
    )
    still = [source.id for source in found if source.id in reasons and not source.accepted]
    notes = tuple(f"{name} is accepted, and did not differ" for name in still)
    return replace(report, sources=found, notes=(*report.notes, *notes))


def _reason(source: SourceResult, reasons: Mapping[str, str], before: SourceResult | None) -> str:
    if source.id in reasons:
        return reasons[source.id]
    same = before is not None and before.status is source.status and _at(before) == _at(source)
    return IN_BASELINE if same else ""


def _at(source: SourceResult) -> object:
    """Where a source broke, whatever lines were added above it."""
    divergence = source.divergence
    where: Location | None = divergence.cause.location if divergence and divergence.cause else None
    if where is not None:
        return (where.file, where.function, where.code)
    return (divergence.phase, divergence.name) if divergence else None
