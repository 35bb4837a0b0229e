"""The audit: the floor, the experiment over the sources that apply, the evidence, and the report."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from repro_audit.config import seconds
from repro_audit.errors import BudgetSpentError
from repro_audit.experiment import (
    DOUBTS,
    Factor,
    Judgement,
    Outcome,
    Result,
    experiment,
    shared,
    trials_if_all_hold,
)
from repro_audit.findings import effect_size, summary
from repro_audit.findings.evidence import finding, not_tried, read
from repro_audit.findings.fix_trials import try_fixes
from repro_audit.findings.inspection import Finding, Suspicion, inspect
from repro_audit.findings.measurement import measure, reference_setting
from repro_audit.findings.stakes import nothing_at_stake
from repro_audit.findings.wording import in_words, working_directory
from repro_audit.report import model
from repro_audit.session import session
from repro_audit.source import Levels, Scope, Source, Verdict, configured, listed
from repro_audit.sources import (
    catalogue,
    installed,
)
from repro_audit.storage.facts import Facts
from repro_audit.storage.reads import Suspect
from repro_audit.trial import first_trial
from repro_audit.trial.oracle import DivergedPair, Trial, TrialOracle, part
from repro_audit.trial.request import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from repro_audit.config import Options
    from repro_audit.report.progress import Progress
    from repro_audit.target import Target
    from repro_audit.trial.kept import Kept

T = TypeVar("T")

SHORT_TRAINING = 2.0
"""Seconds of training in a trial below which trials run side by side; longer ones have the cores to themselves."""
SMALL_SHARE = 0.3
"""Of a CUDA device's memory: trials that hold more do not run side by side, lest one find too little."""
FIRST_VERDICT = 2
"""So many trials beside the first one tell how the promise of a rerun stands so far."""
MOST_NAMED = 3
LEAST_CHANCES = 8
"""How often a race that does not always show is run again, at least, before it is given up."""


def audit(
    target: Target, options: Options, progress: Progress, *, kept_in: Path | None = None
) -> model.Report:
    """Audit a target from the current directory.

    Args:
        kept_in: where trials are kept for a later audit; None for nowhere.

    Raises:
        UsageError: an option names what does not exist.
    """
    started = time.monotonic()
    with session(target, options, progress, kept_in=kept_in) as oracle:
        report = Audit(oracle, options, progress).report()
        if options.goes_on and oracle.kept is not None:
            told = _taken(oracle.kept)
            if told:
                progress.found(told)
    return dataclasses.replace(report, seconds=round(time.monotonic() - started, 3))


def _taken(kept: Kept) -> str:
    """How many trials were not made, as they were kept; why none; nothing where this audit is the first."""
    if kept.taken:
        trials = f"{kept.taken} {'trial' if kept.taken == 1 else 'trials'}"
        return f"{trials} of earlier audits taken from {kept.place}"
    if kept.too_large:
        return "no trials of earlier audits taken: the directory holds too many files to look at"
    changed = kept.changed_before[:MOST_NAMED]
    return (
        f"no trials of earlier audits taken: other than before are {listed(changed)}"
        if changed
        else ""
    )


class Audit:
    """One audit under way."""

    def __init__(self, oracle: TrialOracle, options: Options, progress: Progress) -> None:
        self.oracle = oracle
        self.options = options
        self.progress = progress
        self.started = time.monotonic()
        self._reruns: list[Trial] = []
        self.sources = {
            name: configured(source, options.sources.get(name, {}))
            for name, source in catalogue().items()
        }

    def report(self) -> model.Report:
        """Run the floor; where it trains, the experiment; where something broke, the evidence."""
        self.oracle.told = self._hear
        if not self.oracle.fresh:
            self._warm()
        floor = self.floor()
        if floor.ended.status != "ok":
            return self.report_of(floor)
        floor = self._compared_with_another(floor)
        levels, untried = self._levels(floor.facts)
        self.oracle.hangs_on_load = lambda setting: any(
            levels[name].races_at(level) for name, level in setting.items() if name in levels
        )
        factors = [_factor(self.sources[name], value) for name, value in levels.items()]
        if self.options.budget is not None:
            self.oracle.runner.until = self.started + seconds(self.options.budget)
        result = self._experiment(factors, floor)
        facts = self._with_pairs(floor, result)
        judgements = self._yielded(self._decided(result.judgements))
        findings = self._findings(levels, untried, judgements, facts)
        if result.spent:
            findings = tuple(self._in_time(each, judgements) for each in findings)
        report = self.report_of(
            floor,
            sources=findings,
            unexplained=self._unexplained(result),
            doubt=self._doubt(result),
        )
        if not result.spent:
            return report
        more = f"the budget of {self.options.budget} was spent: give more, or go on with --continue"
        return dataclasses.replace(report, notes=(*report.notes, more))

    def _doubt(self, result: Result) -> str | None:
        """What keeps a verdict from being reached where a run differs and there was no time to find out why."""
        if any(each.note in DOUBTS for each in result.judgements.values()):
            return f"a run differs, and the budget of {self.options.budget} was spent before it was known why"
        return None

    def _in_time(
        self, entry: model.SourceResult, judgements: Mapping[str, Judgement]
    ) -> model.SourceResult:
        """A source's entry where the time was over before all was tried; such a one is unfinished."""
        judgement = judgements.get(entry.id)
        if judgement is None or judgement.status != "untested":
            return entry
        reason = judgement.note or f"not tried within the budget of {self.options.budget}"
        return dataclasses.replace(entry, reason=reason, unfinished=True)

    def _hear(self, trial: Trial) -> None:
        """Say at once what the first trials show of the promise of a rerun: after the third one, in most cases."""
        floor, others = self.oracle.floor, self._reruns
        if floor is not None and self._differs(trial, floor):
            self.oracle.runner.warm([self.oracle.environment({})])
        if floor is None or any(
            self.sources[name].scope is not Scope.RERUN for name in trial.setting
        ):
            return
        others.append(trial)
        if len(others) != FIRST_VERDICT or floor.digest is None:
            return
        odd = any(other.digest != floor.digest for other in others)
        if odd or nothing_at_stake(floor.facts, floor.trace) is None:
            # A run that differs need be no source's doing: whose it is, the experiment tells.
            said = "? a run differs, and why is looked for" if odd else "✓ rerun holds so far"
            passed = time.monotonic() - self.started
            self.progress.found(f"{said}, after {1 + len(others)} trials in {passed:.0f} s")

    def _differs(self, trial: Trial, floor: Trial) -> bool:
        """Whether a trial is another one's than the floor, and not because it was to be."""
        yardsticks = (self.sources[name].scope is Scope.NONE for name in trial.setting)
        return not self.oracle.fresh and trial.digest != floor.digest and not any(yardsticks)

    def _warm(self) -> None:
        """Have zygotes start beside the first trial."""
        chosen = [source for source in self.sources.values() if self._left_out(source) is None]
        costly = [{source.id: level} for source in chosen for level in _costly_levels(source)]
        self.oracle.runner.warm(map(self.oracle.environment, costly))

    def _warm_more(self, factors: list[Factor]) -> None:
        """Have the zygotes start that later trials need, whatever the first ones show."""
        later = [{each.id: level} for each in factors for level in each.levels.interpreters[1:]]
        if not self.oracle.fresh:
            settings = [together] if (together := shared(factors)) else later
            self.oracle.runner.warm(map(self.oracle.environment, settings))

    def floor(self) -> Trial:
        """The first trial, which the later ones go by."""
        floor = self.oracle.first()
        if floor.ended.status != "ok":
            floor = first_trial.settle(self.oracle, floor)
        if floor.ended.status == "ok" and self.oracle.move_to_memory():
            floor = self.oracle.begin_again()
        self.oracle.runner.preload(floor.facts.modules)
        facts = floor.facts
        # An interpreter that has imported PyTorch before the program runs would hide what they change.
        self.oracle.fresh = self.oracle.fresh or bool(facts.set_for_import)
        self.oracle.before_kernels = bool(facts.set_before_torch)
        if self.options.jobs is None and (
            facts.training_seconds > SHORT_TRAINING
            or facts.cuda_share > SMALL_SHARE
            or facts.ranks > 1  # they meet at an address, which may be the same in each trial
        ):
            self.oracle.runner.side_by_side = 1
        return self.oracle.spread(floor) if floor.digest is not None else floor

    def _compared_with_another(self, floor: Trial) -> Trial:
        """The floor, with what sources learn from one more run like it, where any needs that."""
        ways = {
            name: source.second_floor
            for name, source in self.sources.items()
            if source.second_floor is not None and source.second_floor.wanted(floor.facts)
        }
        if not ways:
            return floor
        (again,) = self.oracle.try_settings([({}, Watch())])
        for name, way in ways.items():
            found = way.compare(floor.facts, again.facts, floor.directory)
            if way.is_loose(found):
                self.oracle.loose.add(name)
            floor = self.oracle.surveyed(floor, name, found)
        return floor

    def _left_out(self, source: Source) -> str | None:
        """Why the user does not want a source tried."""
        if self.options.only and source.id not in self.options.only:
            return "left out by --only"
        scope = self.options.scope
        if scope is not None and source.scope not in model.required_promises(scope):
            return "left out by --scope"
        return "left out by --skip" if source.id in self.options.skip else None

    def _levels(self, facts: Facts) -> tuple[dict[str, Levels], dict[str, str]]:
        """The levels of the sources that apply to this program, and why the others do not."""
        levels, untried = {}, {}
        for name, source in self.sources.items():
            answer = (
                self._left_out(source)
                or facts.failing.get(name)
                or facts.lacking.get(name)
                or self.oracle.left.get(name)
                or source.levels(facts)
            )
            if isinstance(answer, Levels):
                levels[name] = answer
            else:
                untried[name] = answer
        # A source that is judged by another one's run needs that run, though the user left the other one out.
        for name, _ in filter(None, [found.judged_by for found in levels.values()]):
            answer = self.sources[name].levels(facts)
            if name not in levels and isinstance(answer, Levels):
                levels[name] = answer
                del untried[name]
        return levels, untried

    def _experiment(self, factors: list[Factor], floor: Trial) -> Result:
        """The experiment; once more with fresh interpreters throughout where forking turns out unfaithful."""
        self._warm_more(factors)
        self.progress.foresee(trials_if_all_hold(factors, runs=self.options.runs))
        outcome = Outcome(trial=floor.id, status="ok", digest=floor.digest)
        result = experiment(
            factors, outcome, self.oracle, runs=self.options.runs, fresh=self.oracle.fresh
        )
        if not result.faithful:
            self.oracle.fresh = True
            result = experiment(factors, outcome, self.oracle, runs=self.options.runs, fresh=True)
        return result

    def _decided(self, judgements: Mapping[str, Judgement]) -> dict[str, Judgement]:
        """The judgements, without those that hold on runs which only whole epochs could tell from the floor."""
        trials = self.oracle.trials
        note = (
            "its runs differ only after the audit left an epoch early, which proves nothing, and a whole epoch is too "
            "long to be tried"
        )
        return {
            name: dataclasses.replace(judgement, status="untested", note=note)
            if judgement.status == "held"
            and any(level.trial and trials[level.trial].undecided for level in judgement.levels)
            else judgement
            for name, judgement in judgements.items()
        }

    def _yielded(self, judgements: Mapping[str, Judgement]) -> dict[str, Judgement]:
        """The judgements, where a source that yields to another one holds if that one's runs explain its own."""
        trials = self.oracle.trials
        decided = dict(judgements)
        for name, judgement in judgements.items():
            first, words = self.sources[name].yields_to or ("", "")
            other = judgements.get(first)
            if other is None or judgement.status != "broke":
                continue
            explained = {trials[level.trial].digest for level in other.levels if level.trial}
            differing = [each.trial for each in judgement.levels if each.diverged and each.trial]
            if all(trials[trial].digest in explained for trial in differing):
                decided[name] = dataclasses.replace(
                    judgement,
                    status="held",
                    confidence=None,
                    pair=None,
                    undone=None,
                    blamed=other.blamed or other.id,
                    note=words,
                )
        return decided

    def _with_pairs(self, floor: Trial, result: Result) -> Facts:
        """The floor's facts, with what only the pairs show that differ."""
        survey = dict(floor.facts.survey)
        for name, judgement in result.judgements.items():
            told = self.sources[name].survey_of_pair
            if told is not None and judgement.pair is not None:
                survey[name] = told(floor.trace, self.oracle.trials[judgement.pair[1]].trace)
        return dataclasses.replace(floor.facts, survey=survey)

    def _findings(
        self,
        levels: Mapping[str, Levels],
        untried: Mapping[str, str],
        judgements: Mapping[str, Judgement],
        facts: Facts,
    ) -> tuple[model.SourceResult, ...]:
        """Every source's entry in the report, in the catalogue's order."""
        trials = self.oracle.trials
        all_facts = {
            name: self._with_diverged(facts, name, judgement)
            for name, judgement in judgements.items()
        }
        verdicts = {
            name: read(self.sources[name], judgement, all_facts[name], trials)
            for name, judgement in judgements.items()
        }
        diverging_pairs = {}
        for name, judgement in judgements.items():
            if judgement.pair is None or verdicts[name].status != "broke":
                continue
            reference, diverged = judgement.pair
            common = self.oracle.common if judgement.narrowed else None
            diverging = part(trials[reference], trials[diverged], common)
            if diverging is not None:
                diverging_pairs[name] = diverging
                self._tell(self.sources[name], judgement, diverging)
        divergences = self._located(
            measure(diverging_pairs, self.oracle), diverging_pairs, levels, judgements
        )
        measured = self._if_time(partial(self._measured, diverging_pairs, judgements), {})
        fixes = partial(try_fixes, self.sources, diverging_pairs, divergences, self.oracle)
        tried = self._if_time(fixes, {})
        return tuple(
            not_tried(
                source,
                Verdict(status="not-exercised", reason=untried[name]),
                left_out=self._left_out(source) is not None,
            )
            if name in untried
            else finding(
                source,
                judgements[name],
                verdicts[name],
                all_facts[name],
                trials=trials,
                diverging=diverging_pairs.get(name),
                divergence=divergences.get(name),
                measured=measured.get(name, ()),
                tried=tried.get(name),
            )
            for name, source in self.sources.items()
        )

    def _tell(self, source: Source, judgement: Judgement, diverging: DivergedPair) -> None:
        """Show at once what is known of a finding; its line follows once it is found."""
        first = diverging.difference.first
        broken = "no promise" if source.scope is Scope.NONE else source.scope.value
        self.progress.found(
            f"✗ {source.id} breaks {broken}, {judgement.confidence or 'seen'} in "
            f"{time.monotonic() - self.started:.0f} s: {first.name} differs in step {first.step}"
        )

    def _located(
        self,
        divergences: Mapping[str, model.Divergence],
        diverging_pairs: Mapping[str, DivergedPair],
        levels: Mapping[str, Levels],
        judgements: Mapping[str, Judgement],
    ) -> dict[str, model.Divergence]:
        """The divergences with the causes that a closer look at each pair finds."""
        if not self.options.pinpoint:
            return dict(divergences)
        suspicions = {
            name: Suspicion(
                diverging=diverging,
                reference=dict(reference_setting(name, diverging)),
                race=name not in levels
                or not diverging.diverged.setting
                or levels[name].races_at(diverging.diverged.setting.get(name)),
                runs=self._chances(judgements.get(name)),
                suspect=self._suspect(name, diverging),
            )
            for name, diverging in diverging_pairs.items()
            if not (name in self.sources and self.sources[name].names_cause)
            # What noise does to the rest of two runs would be named as well as what the source does.
            and not (name in judgements and judgements[name].narrowed)
        }
        never_seeded = self.oracle.floor is not None and self.oracle.floor.facts.never_seeded
        words: dict[str, tuple[model.Cause | None, str]] = {}

        def told(name: str, found: Finding) -> None:
            cause, _ = words[name] = in_words(found, never_seeded=never_seeded)
            if cause is not None and cause.location is not None:
                line = f"{cause.location.place}  {cause.location.code or cause.what}"
                self.progress.found(f"→ {name or 'unexplained'}: {line}")

        budget = self.options.budget
        alone = self.oracle.runner.side_by_side == 1
        try:
            inspect(suspicions, self.oracle, told, one_by_one=alone or budget is not None)
        except BudgetSpentError:
            why = f"the budget of {budget} was spent before its line was found"
            words.update({name: (None, why) for name in suspicions if name not in words})
        return {
            name: dataclasses.replace(divergence, cause=words[name][0], no_cause=words[name][1])
            if name in words
            else divergence
            for name, divergence in divergences.items()
        }

    @staticmethod
    def _if_time(look: Callable[[], dict[str, T]], otherwise: dict[str, T]) -> dict[str, T]:
        """What further trials tell; `otherwise` where there is no time for them."""
        try:
            return look()
        except BudgetSpentError:
            return otherwise

    def _chances(self, judgement: Judgement | None) -> int:
        """How often a race is run again before it is given up: not so often where each run so far has shown it."""
        differed, total = (judgement and judgement.race) or (0, 0)
        shy = not 0 < differed == total
        return max(self.options.runs, LEAST_CHANCES) if shy else self.options.runs

    def _suspect(self, name: str, diverging: DivergedPair) -> Suspect | None:
        """What the line to blame for a source does; None for what no source accounts for."""
        source = self.sources.get(name)
        if source is None:
            return None
        surveys = (
            trial.facts.survey.get(name) for trial in (diverging.reference, diverging.diverged)
        )
        return Suspect(
            reads=source.reads,
            lines=frozenset(
                (str(base / file), line)
                for found in surveys
                for file, line in source.lines(found)
                for base in working_directory()
            ),
            hidden_order=source.hidden_order,
        )

    def _measured(
        self, diverging_pairs: Mapping[str, DivergedPair], judgements: Mapping[str, Judgement]
    ) -> dict[str, tuple[str, ...]]:
        """In words, by source: the size of what broke beside the seed's effect, and the cost of the fix."""
        if not diverging_pairs:
            return {}
        seeds = effect_size.seeds(self.oracle, self.sources, judgements)
        costs = effect_size.costs(self.oracle, [self.sources[name] for name in diverging_pairs])
        return {
            name: tuple(filter(None, (effect_size.share(diverging, seeds), costs.get(name))))
            for name, diverging in diverging_pairs.items()
        }

    def _with_diverged(self, facts: Facts, name: str, judgement: Judgement) -> Facts:
        """The floor's facts, with what the source's survey found in the run that differed."""
        if judgement.pair is None:
            ran = next((level.trial for level in judgement.levels if level.trial), None)
            varied = self.oracle.trials[ran].facts.survey.get(name) if ran else None
            return dataclasses.replace(facts, varied=varied)
        found = self.oracle.trials[judgement.pair[1]].facts.survey.get(name)
        return dataclasses.replace(facts, diverged=found)

    def _unexplained(self, result: Result) -> model.Divergence | None:
        """What differs though no source accounts for it."""
        if result.unexplained is None:
            return None
        trials = self.oracle.trials
        diverging = part(trials[result.unexplained[0]], trials[result.unexplained[1]])
        if diverging is None:
            return None
        diverging_pairs = {"": diverging}
        return self._located(measure(diverging_pairs, self.oracle), diverging_pairs, {}, {})[""]

    def report_of(
        self,
        floor: Trial,
        *,
        sources: tuple[model.SourceResult, ...] | None = None,
        unexplained: model.Divergence | None = None,
        doubt: str | None = None,
    ) -> model.Report:
        """What is to be said of the audit; of a first trial that failed, why."""
        facts = floor.facts
        failed = floor.ended.status not in {"ok", "timeout"}
        oracle = self.oracle
        nothing = Verdict(
            status="not-exercised", reason="the target did not get as far as training"
        )
        return model.Report(
            target=model.Target(
                spec=oracle.target.spec, mode=oracle.target.mode, argv=oracle.target.argv
            ),
            require=self.options.require,
            settings=model.Settings(
                seed=oracle.seed,
                steps=facts.steps if self.options.until_epoch else oracle.steps,
                fresh=oracle.fresh,
                isolation=oracle.isolation.kind,
            ),
            environment=summary.environment(facts),
            sources=sources
            or tuple(not_tried(source, nothing) for source in self.sources.values()),
            trials=tuple(summary.record(trial) for trial in oracle.trials.values()),
            seconds=0.0,
            unexplained=unexplained,
            inconclusive=summary.timed_out(floor) or doubt,
            nothing_at_stake=nothing_at_stake(facts, floor.trace) if floor.digest else None,
            failure=summary.failure(floor) if failed else None,
            assumptions=(*facts.assumptions, *summary.fresh_throughout(facts)),
            coverage=summary.coverage(facts),
            further=summary.further(floor, oracle.target, Path.cwd()),
            notes=(
                *summary.notes(floor, oracle.isolation),
                *oracle.runner.notes,
                *filter(None, (self.options.origin, *installed().notes)),
            ),
        )


def _costly_levels(source: Source) -> tuple[str, ...]:
    """The first level that needs an interpreter of its own, as far as that is known before the program has run."""
    levels = source.levels(Facts())
    return levels.interpreters[:1] if isinstance(levels, Levels) else ()


def _factor(source: Source, levels: Levels) -> Factor:
    """The source as the experiment sees it."""
    return Factor(id=source.id, scope=source.scope.value, pinned=source.pinned, levels=levels)
