"""From a judgement to a finding: where two trials part, by how much, which levels agree, what proves cause and fix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from repro_audit.analysis.compare import way
from repro_audit.notebook import of_file
from repro_audit.report.model import (
    Cause,
    Confidence,
    Divergence,
    DivergenceKind,
    Fix,
    LevelResult,
    Link,
    Location,
    LossCurve,
    Size,
    SourceResult,
    SourceStatus,
)
from repro_audit.source import Verdict, listed
from repro_audit.storage.trace import Phase
from repro_audit.storage.values import Magnitude, Value, magnitude, open_values
from repro_audit.trial.request import VALUES, Watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from repro_audit import source as source_module
    from repro_audit.analysis.compare import Difference
    from repro_audit.experiment import Judgement
    from repro_audit.fixes import Proposal
    from repro_audit.source import Source
    from repro_audit.storage.facts import Facts, Key
    from repro_audit.storage.trace import Trace
    from repro_audit.trial.oracle import DivergedPair, Trial, TrialOracle


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """An edit of the line to blame, and what became of the pair with it."""

    proposal: Proposal
    agreed: bool | None
    """Whether both runs of the pair agree with it; None where they were not made."""


def measure(
    diverging_pairs: Mapping[str, DivergedPair], oracle: TrialOracle
) -> dict[str, Divergence]:
    """Measure the first difference of each pair. Values that no earlier run has saved are fetched by a further run."""
    keys = {name: diverging.key for name, diverging in diverging_pairs.items()}
    references = {
        name: replace(diverging.reference, setting=dict(reference_setting(name, diverging)))
        for name, diverging in diverging_pairs.items()
    }
    wanted: dict[tuple[tuple[str, str], ...], set[Key]] = {}
    for name, diverging in diverging_pairs.items():
        for trial in (references[name], diverging.diverged):
            if _saved(trial, keys[name], oracle) is None:
                setting = tuple(sorted(trial.setting.items()))
                wanted.setdefault(setting, set()).add(keys[name])
    oracle.try_settings(
        [(dict(setting), Watch(capture=tuple(sorted(keys)))) for setting, keys in wanted.items()]
    )
    found = {}
    for name, diverging in diverging_pairs.items():
        ours = _saved(references[name], keys[name], oracle)
        theirs = _saved(diverging.diverged, keys[name], oracle)
        traces = diverging.reference.trace, diverging.diverged.trace
        found[name] = divergence_of(diverging.difference, (ours, theirs), traces)
    return found


def _saved(trial: Trial, key: Key, oracle: TrialOracle) -> Value | None:
    """The value that a run of the trial's setting saved."""
    for other in oracle.trials.values():
        if other.setting == trial.setting and not other.edited:
            value = open_values(other.directory / VALUES).get(key)
            if value is not None:
                return value
    return None


def reference_setting(name: str, diverging: DivergedPair) -> tuple[tuple[str, str], ...]:
    """The diverged setting with the source put back: the same interpreter can serve both."""
    setting = {key: level for key, level in diverging.diverged.setting.items() if key != name}
    return tuple(sorted(setting.items())) if setting != diverging.diverged.setting else ()


def divergence_of(
    difference: Difference,
    values: tuple[Value | None, Value | None],
    traces: tuple[Trace, Trace],
) -> Divergence:
    """The first difference, with its size where both runs' values could be had."""
    first, (ours, theirs) = difference.first, values
    kind, detail = DivergenceKind(first.kind), first.detail
    size = None
    if kind is DivergenceKind.VALUE and ours is not None and theirs is not None:
        size = magnitude(ours, theirs)
        if size.mismatched:
            kind = DivergenceKind(size.kind)
        else:  # what differs at random can not be had again
            size, detail = None, "the two runs could not be had again to measure by how much"
    if first.phase is Phase.DATA and _other_samples(difference):
        kind, detail = DivergenceKind.ORDER, "the sampler hands out other indices"
    return Divergence(
        step=first.step,
        phase=first.phase.label,
        kind=kind,
        name=first.name,
        size=reported(size) if size else None,
        detail=detail,
        way=_links(*traces),
    )


def reported(size: Magnitude) -> Size:
    """A size as reports have it."""
    return Size(
        max_abs=size.max_abs,
        max_ulp=size.max_ulp,
        mismatched=size.mismatched,
        numel=size.numel,
        first_index=size.first_index,
    )


def _links(reference: Trace, diverged: Trace) -> tuple[Link, ...]:
    """How the difference goes on to the loss."""
    return tuple(
        Link(what=each.name, where=f"step {each.step}, {each.phase.label}")
        for each in way(reference, diverged)
    )


def _other_samples(difference: Difference) -> bool:
    """Whether the sampler handed out other indices where the batch first differs."""
    step = difference.first.step
    return any(row.name.endswith(".indices") and row.step == step for row in difference.context)


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
    if notebook is not None:
        cell, line = notebook.place(line)
    return Location(file=file, line=line, function=function, code=code or None, cell=cell)


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
