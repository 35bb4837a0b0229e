"""Two runs, one of them recorded, as a report has them: equal, or where they part, by how much, and what changed."""

from __future__ import annotations

import linecache
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from repro_audit.analysis import compare as traces
from repro_audit.analysis.compare import Difference
from repro_audit.analysis.moved_lines import AS_IT_WAS, changed_lines
from repro_audit.analysis.pinpoint import Run, pinpoint
from repro_audit.analysis.tolerance import Tolerance, Within, forgive
from repro_audit.findings import inspection
from repro_audit.findings.measurement import divergence_of, drift_of
from repro_audit.findings.wording import in_words
from repro_audit.notebook import SUFFIX
from repro_audit.report import model
from repro_audit.source import Scope
from repro_audit.storage.facts import Key
from repro_audit.storage.fingerprint import CODE, Change, changes
from repro_audit.storage.trace import Phase, Trace
from repro_audit.storage.values import Value

_MOST_NAMED = 3
"""Of what has changed, in one sentence."""
_MOST_LINES = 8
"""Of a file that was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two runs."""

    words: str
    """What to call it: `the record`, `this run`, `a.repro`."""
    trace: Trace
    values: Mapping[Key, Value]
    losses: Sequence[float]
    run: Run | None = None
    """Its events; None where no cause is looked for."""
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """The program's own, by their paths below its tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What two traces come to under a tolerance."""

    difference: Difference | None
    """None where they are equal, or all that differs is within the tolerance."""
    within: Within


def compare(a: Side, b: Side, tolerance: Tolerance) -> Compared:
    """Compare the traces of two sides."""
    if not tolerance:
        return Compared(difference=traces.compare(a.trace, b.trace), within=Within())
    unequal = traces.unequal_values(a.trace, b.trace)
    theirs, within = forgive(b.trace, unequal, a.values, b.values, tolerance)
    return Compared(difference=traces.compare(a.trace, theirs), within=within)


def equal(a: Side, b: Side, within: Within, tolerance: Tolerance) -> model.SourceResult:
    """The report's entry of two sides that are equal."""
    return _entry(a, b, status=model.SourceStatus.HELD, reason=within_in_words(within, tolerance))


def within_in_words(within: Within, tolerance: Tolerance) -> str:
    """How far two sides are apart that are equal within a tolerance alone; empty where they are equal."""
    if within.key is None:
        return ""
    step, phase, name, _ = within.key
    sampled = (
        f"; of {within.unknown} of them, a sample of the elements was compared"
        if within.unknown
        else ""
    )
    return (
        f"{tolerance}: {within.outcomes:,} tensors differ, by at most {within.max_abs:.3g} (in {name}, step {step}, "
        f"{Phase(phase).label}) and {within.max_ulp:,} ulp{sampled}"
    )


def different(
    a: Side, b: Side, difference: Difference, *, repeated: bool, undone: Change | None = None
) -> model.SourceResult:
    """The report's entry of two sides that differ.

    Args:
        a: the reference.
        b: the other one.
        difference: of both.
        repeated: each of both runs was made twice, with the same result.
        undone: the change that, put back alone, made the runs equal.
    """
    first = difference.first
    key = (first.step, int(first.phase), first.name, first.occurrence)
    ours, theirs = a.values.get(key), b.values.get(key)
    divergence = divergence_of(difference, (ours, theirs), (a.trace, b.trace))
    divergence = _measured(divergence, ours, theirs)
    cause, no_cause, path = _cause(a, b, difference)
    if cause is not None and _is_new(cause.location, a, b):
        cause = replace(cause, what=f"the line was changed: the program of {a.words} has another")
    drift = drift_of((a.trace, b.trace), a.values, b.values)
    divergence = replace(divergence, cause=cause, no_cause=no_cause, drift=drift)
    divergence = _called(divergence, {traces.PINNED: a.words, traces.VARIED: b.words})
    found = _changes(a, b, cause, path)
    reason = _reason(found, undone, a.words)
    if not repeated:
        reason = (
            f"{b.words} differs from itself when it is made again; repro-audit check finds out why"
        )
    return replace(
        _entry(a, b, status=model.SourceStatus.BROKE, reason=reason),
        confidence=model.Confidence.PROVEN if repeated else model.Confidence.SUSPECTED,
        divergence=divergence,
        evidence=tuple(_in_words(change, undone, a, b) for change in found),
        losses=(
            model.LossCurve(label=a.words, values=tuple(a.losses)),
            model.LossCurve(label=b.words, values=tuple(b.losses)),
        ),
    )


def _entry(a: Side, b: Side, *, status: model.SourceStatus, reason: str) -> model.SourceResult:
    became = (
        "computes the same as"
        if status is model.SourceStatus.HELD
        else "computes something else than"
    )
    return model.SourceResult(
        id=model.RECORD,
        title=f"{b.words} {became} {a.words}",
        scope=Scope.RERUN,
        status=status,
        reason=reason,
    )


def _measured(
    divergence: model.Divergence, ours: Value | None, theirs: Value | None
) -> model.Divergence:
    """Say where a size is that of a sample, or can not be told."""
    size, is_value = divergence.size, divergence.kind is model.DivergenceKind.VALUE
    if ours is None or theirs is None or not ours.of or not is_value:
        return divergence
    kept = f"{ours.numel:,} of its {ours.of:,} elements were kept"
    if size is None:
        return replace(divergence, detail=f"{kept}, and none of these differs")
    return replace(divergence, size=replace(size, first_index=None), detail=kept)


def _cause(a: Side, b: Side, difference: Difference) -> tuple[model.Cause | None, str, str]:
    """What parts two sides, or why that is not known; and the file that differs, where it is one."""
    if a.run is None or b.run is None:
        return None, "", ""
    shown = {str(Path.cwd() / name): text for name, text in b.files.items()}
    shown |= {f"{Path.cwd() / name}{AS_IT_WAS}": text for name, text in a.files.items()}
    for name, text in shown.items():  # as the runs had it, whatever is there now
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    found = pinpoint(a.run, b.run, difference.first, trace=a.trace)
    if found is None:
        return None, "no op, line, draw or file that was watched differs before it", ""
    causes = tuple(inspection.Located(cause=each) for each in (found, *found.independent))
    cause, no_cause = in_words(inspection.Finding(causes=causes))
    return cause, no_cause, found.path


def _is_new(location: model.Location | None, a: Side, b: Side) -> bool:
    """Whether a line of the second side's program is none of the first's."""
    return location is not None and location.line in _changed(location.file, a, b)


def _changed(file: str, a: Side, b: Side) -> list[int]:
    """The lines of a file that the first side has not; none of a notebook, whose lines count by its cells."""
    if file.endswith(SUFFIX) or file not in a.files or file not in b.files:
        return []
    return changed_lines(a.files[file], b.files[file])


def _called(divergence: model.Divergence, names: Mapping[str, str]) -> model.Divergence:
    """The runs under their own names."""

    def called(text: str) -> str:
        for name, ours in names.items():
            text = text.replace(name, ours)
        return text

    def renamed(cause: model.Cause) -> model.Cause:
        return replace(
            cause,
            what=called(cause.what),
            evidence=tuple(map(called, cause.evidence)),
            also=tuple(map(renamed, cause.also)),
        )

    cause = divergence.cause
    return replace(
        divergence,
        detail=called(divergence.detail),
        no_cause=called(divergence.no_cause),
        cause=None if cause is None else renamed(cause),
    )


def _changes(a: Side, b: Side, cause: model.Cause | None, path: str) -> list[Change]:
    files = {path} if path else set()
    if cause is not None and cause.location is not None:
        files.add(cause.location.file)
    op = cause is not None and cause.op is not None
    return changes(a.fingerprint, b.fingerprint, op=op, files=files)


def _reason(found: Sequence[Change], undone: Change | None, reference: str) -> str:
    if undone is not None:
        return f"proven: with {undone.field} as in {reference}, the runs are equal"
    if not found:
        return f"nothing else that {reference} tells of its run has changed"
    named = [change.field for change in found[:_MOST_NAMED]]
    more = [f"{len(found) - len(named)} more"] if len(found) > len(named) else []
    return f"what has changed, the likeliest first: {', '.join([*named, *more])}"


def _in_words(change: Change, undone: Change | None, a: Side, b: Side) -> str:
    said = change.in_words(a.words, b.words)
    lines = _changed(change.which, a, b) if change.kind == CODE else []
    if lines:
        more = ", …" if len(lines) > _MOST_LINES else ""
        said += f" at line {', '.join(map(str, lines[:_MOST_LINES]))}{more}"
    return f"{said}; put back, the runs are equal" if change == undone else said
