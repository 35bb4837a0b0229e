"""A finding in plain sentences, for the formats that have one message a finding: safe, but not escaped for any."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import final

from repro_audit import notebook
from repro_audit.report import effect, text
from repro_audit.report.findings import (
    LOOK_THERE,
    PINNED_RUNS_DIFFER,
    UNEXPLAINED,
    breaks,
    certainty,
    how_much,
    place,
)
from repro_audit.report.model import (
    Divergence,
    Fix,
    Location,
    Report,
    SourceResult,
    Target,
    TargetFailure,
    broken_promise,
    required_promises,
)
from repro_audit.source import Scope


class Severity(str, Enum):
    """How much a finding weighs."""

    ERROR = "error"
    """It breaks the required promise."""
    WARNING = "warning"
    """It breaks another one."""
    NOTE = "note"
    """It breaks none, or is accepted."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A source that broke, or a difference that no source accounts for."""

    id: str
    """Of the source, or `unexplained`."""
    title: str
    reason: str
    breaks: str
    """`breaks settings, proven; fix verified`."""
    scope: Scope
    severity: Severity
    divergence: Divergence | None
    fix: Fix | None

    @property
    def location(self) -> Location | None:
        """The line to blame."""
        cause = self.divergence.cause if self.divergence is not None else None
        return cause.location if cause is not None else None

    @property
    def sentences(self) -> Iterator[str]:
        """All there is to say but the code of the fix, a line each."""
        yield self.title
        if self.reason:
            yield self.reason
        if self.divergence is not None:
            yield from _of_divergence(self.divergence)
        if self.fix is not None:
            yield f"fix: {text.line(self.fix.summary)}"
            if self.fix.proof:
                yield text.line(self.fix.proof)

    @property
    def said(self) -> list[str]:
        """The same with the code of the fix."""
        return [*self.sentences, *([self.snippet] if self.snippet else [])]

    @property
    def snippet(self) -> str:
        """The code of the fix; empty where there is none."""
        return text.block(self.fix.snippet, tabs=True) if self.fix is not None else ""

    def fingerprint(self, target: Target) -> str:
        """What stays the same from audit to audit, though lines move and numbers change."""
        where, divergence = self.location, self.divergence
        if where is not None:
            parts = [where.file, where.function, where.code]
        else:
            parts = [target.spec, *((divergence.phase, divergence.name) if divergence else ())]
        return hashlib.sha256(json.dumps([self.id, *parts]).encode()).hexdigest()[:32]


def findings(report: Report) -> list[Finding]:
    """What a report found, in the order of every format."""
    found = [_of_source(source, report) for source in effect.findings(report.sources)]
    if report.unexplained is not None:
        found.insert(0, _unexplained(report.unexplained))
    return found


def of_failure(failure: TargetFailure) -> Iterator[str]:
    """Why the target failed, a line each."""
    said = (("", failure.what), ("where: ", failure.where), ("why: ", failure.why))
    for label, content in (*said, ("next: ", failure.next_step)):
        if content:
            yield label + text.line(content)


def program(target: Target) -> str | None:
    """The file that was audited, where the target names one."""
    file = target.spec.rpartition(":")[0] if target.mode == "build" else target.spec
    return file if file.endswith((".py", notebook.SUFFIX)) else None


def _of_source(source: SourceResult, report: Report) -> Finding:
    promise = broken_promise(source, report.sources)
    if source.accepted:
        severity = Severity.NOTE
    elif promise in required_promises(report.require):
        severity = Severity.ERROR
    else:
        severity = Severity.NOTE if promise is Scope.NONE else Severity.WARNING
    return Finding(
        id=source.id,
        title=text.line(source.title),
        reason=text.line(source.reason),
        breaks=f"{text.line(breaks(source))}, {certainty(source)}",
        scope=promise,
        severity=severity,
        divergence=source.divergence,
        fix=source.fix,
    )


def _unexplained(divergence: Divergence) -> Finding:
    return Finding(
        id=UNEXPLAINED,
        title=PINNED_RUNS_DIFFER,
        reason="" if divergence.cause is not None else LOOK_THERE,
        breaks=f"breaks {Scope.RERUN.value}",
        scope=Scope.RERUN,
        severity=Severity.ERROR,
        divergence=divergence,
        fix=None,
    )


def _of_divergence(divergence: Divergence) -> Iterator[str]:
    cause = divergence.cause
    if cause is not None:
        where = f"{text.line(cause.location.place)}: " if cause.location is not None else ""
        yield where + text.line(cause.what)
    elif divergence.no_cause:
        yield f"cause not found: {text.line(divergence.no_cause)}"
    since = place(divergence)
    yield (
        f"since {since}: {text.line(how_much(divergence))}"
        if since
        else text.line(how_much(divergence))
    )
