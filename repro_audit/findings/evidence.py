"""From a judgement to a finding: the line, which levels agree, what proves cause and fix."""

from __future__ import annotations

import linecache
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit import source as source_module
from repro_audit.experiment import Judgement
from repro_audit.fixes import Proposal
from repro_audit.notebook import of_file
from repro_audit.report.model import (
    Cause,
    Confidence,
    Divergence,
    DivergenceKind,
    Excerpt,
    Fix,
    LevelResult,
    Location,
    LossCurve,
    SourceResult,
    SourceStatus,
)
from repro_audit.source import Source, Verdict, listed
from repro_audit.storage.facts import Facts

if TYPE_CHECKING:
    from repro_audit.trial.oracle import DivergedPair, Trial

AROUND = 3
"""Lines of an excerpt before the one that is named, and as many after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """An edit of the line to blame, and what became of the pair with it."""

    proposal: Proposal
    agreed: bool | None
    """Whether both runs of the pair agree with it; None where they were not made."""


def finding(
    source: Source,
    judgement: Judgement,
    verdict: Verdict,
    facts: Facts,
    *,
    trials: Mapping[str, Trial],
    diverging: DivergedPair | None,
    divergence: Divergence | None,
    measured: tuple[str, ...] = (),
    tried: Tried | None = None,
) -> SourceResult:
    """The report's entry for a source that the experiment tried; `measured` ends its evidence."""
    broke = verdict.status == "broke"
    together = tuple(name for name in judgement.together or () if name != source.id)
    return SourceResult(
        id=source.id,
        title=source.title,
        scope=source.scope,
        status=SourceStatus(verdict.status),
        condition=verdict.condition,
        reason=f"only together with {listed(together)}: {verdict.reason}"
        if broke and together
        else verdict.reason,
        confidence=_confidence(judgement) if broke else None,
        levels=tuple(
            LevelResult(level=level.level, diverged=level.diverged, trial=level.trial)
            for level in judgement.levels
        ),
        divergence=_placed(divergence, source, facts) if broke else None,
        fix=_fix(
            source, judgement, facts, trials, tried=tried, fitting=_fitting(source, divergence)
        )
        if broke
        else None,
        evidence=(*_agreement(source, judgement, trials), *verdict.evidence, *measured)
        if broke
        else verdict.evidence,
        losses=_losses(source, judgement, diverging) if broke else None,
        together=together if broke else (),
    )


def _placed(divergence: Divergence | None, source: Source, facts: Facts) -> Divergence | None:
    """The divergence, with the lines that the source knows by itself."""
    places = source.places(facts) if source.places is not None else ()
    if divergence is None and places:
        divergence = Divergence(
            step=places[0].step,
            phase=places[0].phase,
            kind=DivergenceKind.VALUE,
            name=places[0].name,
            within=places[0].within,
        )
    if divergence is None or divergence.cause is not None or not places:
        return divergence
    first, *others = (
        Cause(
            what=place.what,
            step=divergence.step or 0,
            phase=divergence.phase or "",
            location=located(place.file, place.line, place.function, place.code),
        )
        for place in places
    )
    return replace(divergence, cause=replace(first, also=tuple(others)))


def located(file: str, line: int, function: str | None, code: str) -> Location:
    """A line of the program, as a report has it."""
    notebook, cell = of_file(file), None
    if notebook is None:
        lines = linecache.getlines(str(Path.cwd() / file))
    else:
        cell, line = notebook.place(line)
        lines = notebook.cells[cell - 1].text.split("\n")
    return Location(
        file=file,
        line=line,
        function=function,
        code=code or None,
        cell=cell,
        excerpt=_excerpt(lines, line, code),
    )


def _excerpt(lines: Sequence[str], line: int, code: str) -> Excerpt | None:
    """The lines around one; None where the file does not have it there."""
    if not code or not 0 < line <= len(lines) or lines[line - 1].strip() != code:
        return None
    first = max(line - AROUND, 1)
    return Excerpt(
        first=first, lines=tuple(each.rstrip() for each in lines[first - 1 : line + AROUND])
    )


def read(
    source: Source, judgement: Judgement, facts: Facts, trials: Mapping[str, Trial]
) -> Verdict:
    """The source's verdict, with a reason where the source itself had none: no level of it could be judged."""
    verdict = source.judge(judgement, facts)
    if judgement.unpinned:
        return replace(
            verdict,
            status="broke",
            reason="two runs with everything pinned differ, and this could not be pinned in them",
        )
    if judgement.status == "untested" and not verdict.seen:
        theirs = verdict.reason if verdict.status == "not-exercised" else ""
        reason = theirs or judgement.note or "the audit ended before it"
        return Verdict(status="not-exercised", reason=reason)
    if verdict.reason:
        return verdict
    failed = next(
        (level for level in judgement.levels if level.status != "ok" and level.trial), None
    )
    if failed is None or failed.trial is None:
        return Verdict(status=verdict.status, reason="its runs did not come to an end")
    ended = trials[failed.trial].ended
    failure = ended.facts.failure if ended.facts else None
    what = failure.what if failure else f"the process {ended.exit}"
    return Verdict(status=verdict.status, reason=f"the run at {failed.level!r} failed: {what}")


def _confidence(judgement: Judgement) -> Confidence:
    """A finding without a divergence (two workers with one stream) was seen, but nothing undid it."""
    return Confidence(judgement.confidence) if judgement.confidence else Confidence.SUSPECTED


def _fix(
    source: Source,
    judgement: Judgement,
    facts: Facts,
    trials: Mapping[str, Trial],
    *,
    tried: Tried | None,
    fitting: source_module.Fix | None,
) -> Fix:
    """What to write: proven only where just that was run."""
    if tried is not None and tried.agreed:
        proof = "fix verified: with this edit both runs of the pair agree bit for bit"
        return _edit(tried, verified=True, proof=proof)
    cause = _proof_of_cause(source, judgement, trials)
    if tried is not None and tried.agreed is None:
        not_run = "the edit was not run, for trials would write to your own files"
        return _edit(tried, verified=False, proof="; ".join(filter(None, (cause, not_run))))
    unfixed = judgement.removal_pair is not None and judgement.undone != "removal"
    write = source.pinned_fix if unfixed and source.pinned_fix is not None else source.fix
    fix = write(facts) if fitting is None else fitting
    if source.pinned_by_fix and judgement.undone == "pin":
        proof = f"fix verified: with it ({source.id}: {source.pinned}) the runs agree bit for bit"
        return Fix(summary=fix.summary, snippet=fix.snippet, verified=True, proof=proof)
    more = "no run has tried this fix"
    if tried is not None:
        more += f"; an edit of {tried.proposal.file} at the line to blame alone was tried, and is not enough"
    proof = "; ".join(filter(None, (cause, more)))
    return Fix(summary=fix.summary, snippet=fix.snippet, verified=False, proof=proof)


def _fitting(source: Source, divergence: Divergence | None) -> source_module.Fix | None:
    """The source's fix for draws from the generator that is to blame, where it has one of its own for that.

    What hands out other samples is no draw of theirs.
    """
    if divergence is None or divergence.kind is DivergenceKind.ORDER:
        return None
    cause = divergence.cause
    if cause is None or source.fix_of_draw is None or not cause.generator:
        return None
    return source.fix_of_draw(cause.generator)


def _edit(tried: Tried, *, verified: bool, proof: str) -> Fix:
    proposal = tried.proposal
    return Fix(summary=proposal.summary, snippet=proposal.diff, verified=verified, proof=proof)


def _proof_of_cause(source: Source, judgement: Judgement, trials: Mapping[str, Trial]) -> str:
    """What undid the difference; empty where nothing did."""
    if judgement.undone == "removal" and judgement.removal_pair is not None:
        removed = trials[judgement.removal_pair[0]].setting[source.id]
        return (
            f"cause proven: both runs of the pair, with {source.id}: {removed}, agree bit for bit"
        )
    if judgement.undone == "pin":
        return f"cause proven: with {source.id} pinned ({source.pinned}) the runs agree bit for bit"
    return ""


def _agreement(
    source: Source, judgement: Judgement, trials: Mapping[str, Trial]
) -> tuple[str, ...]:
    """Which levels agree with each other, and which runs differ."""
    if judgement.race is not None:
        differed, total = judgement.race
        return (f"{differed} of {total} runs differ from the pinned one ({source.pinned})",)
    groups: dict[str | None, list[str]] = {}
    if judgement.pair is not None:
        groups[trials[judgement.pair[0]].digest] = [source.pinned]
    for level in judgement.levels:
        if level.trial is not None and level.diverged is not None:
            groups.setdefault(trials[level.trial].digest, []).append(level.level)
    lines = [f"{listed(names)} agree" for names in groups.values() if len(names) > 1]
    apart = [names[0] for names in groups.values() if len(names) == 1]
    if lines and apart:
        lines[-1] += (
            f"; {listed(apart)} {'differs' if len(apart) == 1 else 'differ, each in its own way'}"
        )
    elif len(apart) > 1:
        lines.append(f"{listed(apart)} differ from each other")
    return tuple(lines)


def _losses(
    source: Source, judgement: Judgement, diverging: DivergedPair | None
) -> tuple[LossCurve, LossCurve] | None:
    """The losses of both runs over the steps."""
    if diverging is None:
        return None
    trial = diverging.diverged
    levels = [level.level for level in judgement.levels if level.trial == trial.id]
    level = trial.setting.get(source.id) or next(iter(levels), "varied")
    return (
        LossCurve(label=source.pinned, values=diverging.reference.facts.losses),
        LossCurve(label=level, values=diverging.diverged.facts.losses),
    )


def not_tried(source: Source, verdict: Verdict, *, left_out: bool = False) -> SourceResult:
    """The report's entry for a source that the experiment did not try; `left_out` where the user wants that."""
    return SourceResult(
        id=source.id,
        title=source.title,
        scope=source.scope,
        status=SourceStatus(verdict.status),
        reason=verdict.reason,
        left_out=left_out,
    )
