"""From a judgement to a finding: where two trials part, by how much, which levels agree, what proves the mend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from repro_audit.compare import Difference, compare
from repro_audit.report.model import (
    Confidence,
    Divergence,
    DivergenceKind,
    Fix,
    LevelResult,
    LossCurve,
    SourceResult,
    SourceStatus,
)
from repro_audit.source import Verdict
from repro_audit.trace import Phase
from repro_audit.values import magnitude, open_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts
    from repro_audit.oracle import Trial, TrialOracle
    from repro_audit.source import Source
    from repro_audit.trial.request import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """Two trials that differ, and where."""

    reference: Trial
    diverged: Trial
    difference: Difference

    @property
    def key(self) -> Key:
        """The first observation that differs."""
        first = self.difference.first
        return (first.step, int(first.phase), first.name, first.occurrence)


def part(reference: Trial, diverged: Trial) -> Parting | None:
    """Where two trials part; None where they are equal after all, or one left no trace."""
    if reference.digest is None or diverged.digest is None:
        return None
    difference = compare(reference.trace, diverged.trace)
    if difference is None:
        return None
    return Parting(reference=reference, diverged=diverged, difference=difference)


def measure(partings: Mapping[str, Parting], oracle: TrialOracle) -> dict[str, Divergence]:
    """Run each pair once more with the values of its first difference saved, all in one batch; measure them."""
    if not partings:
        return {}
    wanted: list[tuple[Mapping[str, str], tuple[Key, ...]]] = []
    shared: dict[tuple[tuple[str, str], ...], set[Key]] = {}
    for name, parting in partings.items():
        shared.setdefault(_reference_setting(name, parting), set()).add(parting.key)
        wanted.append((parting.diverged.setting, (parting.key,)))
    references = list(shared)
    wanted += [(dict(setting), tuple(sorted(shared[setting]))) for setting in references]
    trials = oracle.try_settings(wanted)
    captured = dict(zip(references, trials[len(partings) :], strict=True))
    return {
        name: _divergence(parting, captured[_reference_setting(name, parting)], trial)
        for (name, parting), trial in zip(partings.items(), trials, strict=False)
    }


def _reference_setting(name: str, parting: Parting) -> tuple[tuple[str, str], ...]:
    """The diverged setting with the source put back: the same interpreter can serve both."""
    setting = {key: level for key, level in parting.diverged.setting.items() if key != name}
    return tuple(sorted(setting.items())) if setting != parting.diverged.setting else ()


def _divergence(parting: Parting, reference: Trial, diverged: Trial) -> Divergence:
    """The first difference, with its size where both runs could be had again."""
    first = parting.difference.first
    kind = DivergenceKind(first.kind)
    size = None
    ours = open_values(reference.directory / "values").get(parting.key)
    theirs = open_values(diverged.directory / "values").get(parting.key)
    if kind is DivergenceKind.VALUE and ours is not None and theirs is not None:
        size = magnitude(ours, theirs)
        kind = DivergenceKind(size.kind)
    if first.phase is Phase.DATA and _other_samples(parting.difference):
        kind = DivergenceKind.ORDER
    return Divergence(
        step=first.step,
        phase=first.phase.label,
        kind=kind,
        name=first.name,
        max_abs=size.max_abs if size else None,
        max_ulp=size.max_ulp if size else None,
        mismatched=size.mismatched if size else None,
        numel=size.numel if size else None,
        detail=first.detail,
    )


def _other_samples(difference: Difference) -> bool:
    """Whether the sampler handed out other indices where the batch first differs."""
    step = difference.first.step
    return any(row.name.endswith(".indices") and row.step == step for row in difference.context)


def finding(
    source: Source,
    judgement: Judgement,
    facts: Facts,
    *,
    trials: Mapping[str, Trial],
    parting: Parting | None,
    divergence: Divergence | None,
) -> SourceResult:
    """The report's entry for a source that the experiment tried."""
    verdict = _explained(source.judge(judgement, facts), judgement, trials)
    broke = verdict.status == "broke"
    return SourceResult(
        id=source.id,
        title=source.title,
        scope=source.scope,
        status=SourceStatus(verdict.status),
        reason=verdict.reason,
        confidence=_confidence(judgement) if broke else None,
        levels=tuple(
            LevelResult(level=level.level, diverged=level.diverged, trial=level.trial)
            for level in judgement.levels
        ),
        divergence=divergence if broke else None,
        fix=_fix(source, judgement, facts) if broke else None,
        evidence=(*_agreement(source, judgement, trials), *verdict.evidence)
        if broke
        else verdict.evidence,
        losses=_losses(source, parting) if broke else None,
    )


def _explained(verdict: Verdict, judgement: Judgement, trials: Mapping[str, Trial]) -> Verdict:
    """The verdict, with a reason where the source itself had none: no level of it could be judged."""
    if judgement.status == "untested":
        return Verdict(status="not-exercised", reason=judgement.note or "the audit ended before it")
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
    """Findings that need no divergence (two workers with one stream) are seen, not inferred."""
    return Confidence(judgement.confidence) if judgement.confidence else Confidence.PROVEN


def _fix(source: Source, judgement: Judgement, facts: Facts) -> Fix:
    fix = source.fix(facts)
    proofs = {
        "pin": f"with {source.id} pinned ({source.pinned}) the runs agree bit for bit",
        "removal": "both runs of the pair, repeated with the mend in place, agree bit for bit",
    }
    proof = proofs.get(judgement.undone or "", "")
    return Fix(summary=fix.summary, snippet=fix.snippet, verified=bool(proof), proof=proof)


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
    lines = [f"{_listed(names)} agree" for names in groups.values() if len(names) > 1]
    apart = [names[0] for names in groups.values() if len(names) == 1]
    if lines and apart:
        lines[-1] += (
            f"; {_listed(apart)} {'differs' if len(apart) == 1 else 'differ, each in its own way'}"
        )
    elif len(apart) > 1:
        lines.append(f"{_listed(apart)} differ from each other")
    if judgement.together is not None:
        others = [name for name in judgement.together if name != source.id]
        lines.append(f"only together with {_listed(others)}")
    return tuple(lines)


def _listed(names: Iterable[str]) -> str:
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def _losses(source: Source, parting: Parting | None) -> tuple[LossCurve, LossCurve] | None:
    """The losses of both runs over the steps."""
    if parting is None:
        return None
    level = parting.diverged.setting.get(source.id, "varied")
    return (
        LossCurve(label=source.pinned, values=parting.reference.facts.losses),
        LossCurve(label=level, values=parting.diverged.facts.losses),
    )


def not_tried(source: Source, verdict: Verdict) -> SourceResult:
    """The report's entry for a source that the experiment did not try."""
    return SourceResult(
        id=source.id,
        title=source.title,
        scope=source.scope,
        status=SourceStatus(verdict.status),
        reason=verdict.reason,
    )
