"""Answers the experiment's questions by running trials, and keeps what each trial left."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.analysis import drift
from repro_audit.analysis.compare import Difference, compare
from repro_audit.errors import BudgetSpentError, InternalError, SourceFailedError
from repro_audit.experiment import Outcome, Run, Setting
from repro_audit.isolation.sandbox import Isolation, Tree
from repro_audit.sources import installed
from repro_audit.storage.facts import Facts, Key
from repro_audit.storage.trace import Trace
from repro_audit.target import as_command
from repro_audit.trial import halves
from repro_audit.trial.agreement import Common, CommonOracle
from repro_audit.trial.request import TrialRequest, Watch
from repro_audit.trial.runner import Ended, Environment, Job, Runner
from repro_audit.trial.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from repro_audit.experiment import RunStatus
    from repro_audit.source import Source
    from repro_audit.storage.facts import Json
    from repro_audit.target import Target
    from repro_audit.trial.cluster.runner import ClusterRunner
    from repro_audit.trial.kept import Kept

DAY = 86_400
"""Seconds."""
LONG_SECONDS = 30.0
"""Trials of which the first takes longer are worth the room that they take on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial that has ended."""

    id: str
    setting: Setting
    """What differs from the pinned setting."""
    directory: Path
    ended: Ended
    digest: str | None
    """Of everything that it computed; None where it left no trace."""
    root: str
    """Where it found the tree."""
    whole_epochs: bool = False
    """It took each epoch to its end."""
    edited: bool = False
    """The program was not the user's own: a fix was tried."""
    undecided: bool = False
    """It differs only after an epoch was left early, and no whole one could be tried; it counts as equal."""

    @property
    def facts(self) -> Facts:
        """What it learnt; empty where it died."""
        return self.ended.facts or Facts()

    @property
    def trace(self) -> Trace:
        """Its observations."""
        return Trace.open(self.directory / "trace")


@dataclass(frozen=True, slots=True, kw_only=True)
class DivergedPair:
    """Two trials that differ, and where."""

    reference: Trial
    diverged: Trial
    difference: Difference
    narrowed: bool = False
    """Noise apart: more of them differs than was compared."""

    @property
    def key(self) -> Key:
        """The first observation that differs."""
        first = self.difference.first
        return (first.step, int(first.phase), first.name, first.occurrence)


def part(reference: Trial, diverged: Trial, common: Common | None = None) -> DivergedPair | None:
    """Where two trials part, of what they have in `common`; None where they are equal after all, or left no trace."""
    if reference.digest is None or diverged.digest is None:
        return None
    ours, theirs = reference.trace, diverged.trace
    if common is not None:
        ours, theirs = common.only(ours), common.only(theirs)
    difference = compare(ours, theirs)
    if difference is None:
        return None
    return DivergedPair(
        reference=reference,
        diverged=diverged,
        difference=difference,
        narrowed=common is not None,
    )


@lru_cache(maxsize=1)
def _parameters(floor: Path) -> tuple[Key, ...]:
    """Whose values each repeat saves, by the directory of the first trial."""
    return drift.keys(Trace.open(floor / "trace"))


def _ran_whole(trial: Trial) -> bool:
    """Whether a trial over whole epochs came to the end of each."""
    return trial.ended.status == "ok" and trial.facts.left_early is None


class TrialOracle:
    """Runs the target under settings.

    Args:
        sources: the whole catalogue: each is pinned unless a setting varies it.
        fresh: every trial gets an interpreter of its own.
        resume_args: with which a script goes on from its own checkpoint; None where nobody said how.
        on_several: trials may have processes on several machines.
        kept: the trials on disk; they are only added to, and only where the first takes long, unless it goes on.
    """

    def __init__(
        self,
        *,
        runner: Runner | ClusterRunner,
        isolation: Isolation,
        sources: Mapping[str, Source],
        target: Target,
        seed: int,
        steps: int,
        fresh: bool,
        until_epoch: int | None = None,
        resume_args: tuple[str, ...] | None = None,
        on_several: bool = False,
        kept: Kept | None = None,
    ) -> None:
        self.runner = runner
        self.isolation = isolation
        self.sources = sources
        self.target = target
        self.seed = seed
        self.steps = steps
        self.until_epoch = until_epoch
        self.before_kernels = False
        """The program sets variables that the first kernel reads: no trial may be forked after one has run."""
        self.fresh = fresh or bool(target.launched)  # a command starts interpreters of its own
        self.resume_args = resume_args
        self.on_several = on_several
        self.kept = kept
        self._keeps = kept is not None and kept.goes_on
        """Trials are kept: so are all from a first one on that took long."""
        self._requested = 0
        self.told: Callable[[Trial], None] = lambda _: None
        """Called with each trial at its end."""
        self.instant = int(time.time()) // DAY * DAY + DAY // 2
        self.trials: dict[str, Trial] = {}
        self.floor: Trial | None = None
        self.of_floor = Watch()
        """What the first trial observes beside its trace."""
        self.extent = "everything"
        self.common: Common | None = None
        """What pinned runs have in common, where they differ in the rest."""
        self._singles: list[Trial] = []
        """Runs of one source alone, the values of whose differences no pinned run has saved."""
        self.left: dict[str, str] = {}
        """Sources that no trial pins any more, by id, and why."""
        self.hangs_on_load: Callable[[Setting], bool] = lambda _: False
        """Whether what else the machine does may decide what comes out under a setting."""
        self.loose: set[str] = set()
        """Sources of which no level pins all, in any trial."""
        self.site = Site(isolation, deciding_code(sources))
        self._whole_floor: Trial | None = None
        """The all-pinned trial over whole epochs, once one was needed."""

    def run(self, runs: Sequence[Run]) -> list[Outcome]:
        """Run a batch of settings; part of the `experiment.Oracle` protocol."""
        made = self._try(
            [(run.setting, Watch(capture=self._first_differences(run))) for run in runs],
            fresh=[run.fresh for run in runs],
        )
        tried = [run for run, trial in zip(runs, made, strict=True) if trial is not None]
        trials = self._confirmed([trial for trial in made if trial is not None], tried)
        self._singles += [
            trial
            for run, trial in zip(tried, trials, strict=True)
            if run.purpose == "single" and trial.ended.status == "ok"
        ]
        outcomes = (
            dataclasses.replace(self.outcome(trial.id), status=self._status(run, trial))
            for run, trial in zip(tried, trials, strict=True)
        )
        untested = Outcome(trial="", status="untested", digest=None)
        return [untested if trial is None else next(outcomes) for trial in made]

    def outcome(self, trial: str) -> Outcome:
        """What a trial showed."""
        known = self.trials[trial]
        return Outcome(
            trial=trial,
            status=known.ended.status,
            digest=known.digest,
            unpinned=frozenset((*known.facts.unpinned, *self.loose)),
        )

    def trace(self, trial: str) -> Trace:
        """What was observed in a trial."""
        return self.trials[trial].trace

    def narrowed(self, trials: Sequence[str]) -> CommonOracle | None:
        """See only what trials have in common; None where that is nothing."""
        trained = [trial for trial in trials if self.trials[trial].digest is not None]
        self.common = Common.among([self.trials[trial].trace for trial in trained])
        return CommonOracle(self, trained, self.common) if self.common.contents else None

    def _status(self, run: Run, trial: Trial) -> RunStatus:
        """As the trial ended; a fix under which nothing is trained any more proves nothing, though its runs agree."""
        if run.purpose == "removal" and self.floor is not None:
            before, after = (all(map(isfinite, each.facts.losses)) for each in (self.floor, trial))
            if before and not after:
                return "no-steps"
        return trial.ended.status

    def _confirmed(self, trials: list[Trial], runs: Sequence[Run]) -> list[Trial]:
        """The trials; one that differs only over whole epochs counts, one that differs only without them does not.

        The audit leaves a long epoch early, as trainings do not. Workers have read ahead by then, and what comes at the
        end of an epoch has not happened.
        """
        doubtful = [number for number, trial in enumerate(trials) if self._parts_late(trial)]
        if not doubtful or self.floor is None:
            return trials
        if self._whole_floor is None:
            (self._whole_floor,) = self._try([({}, Watch())], whole_epochs=True)
        floor = self._whole_floor
        told: list[Trial | None] = [floor] * len(doubtful)
        if floor is not None and _ran_whole(
            floor
        ):  # else no other one would come to its end either
            told = self._try(
                [(runs[number].setting, Watch()) for number in doubtful],
                fresh=[runs[number].fresh for number in doubtful],
                whole_epochs=True,
            )
        for number, whole in zip(doubtful, told, strict=True):
            decided = whole is not None and _ran_whole(whole)
            if not decided or (whole and floor and whole.digest == floor.digest):
                cleared = dataclasses.replace(
                    trials[number], digest=self.floor.digest, undecided=not decided
                )
                trials[number] = self.trials[cleared.id] = cleared
        return trials

    def _parts_late(self, trial: Trial) -> bool:
        """Whether a trial parts from the floor only after an epoch was left early."""
        if self.floor is None or trial.ended.status != "ok" or trial.digest == self.floor.digest:
            return False
        left = [each.facts.left_early for each in (self.floor, trial)]
        after = min((steps for steps in left if steps is not None), default=None)
        diverging = part(self.floor, trial) if after is not None else None
        return diverging is not None and after is not None and diverging.key[0] >= after

    def _first_differences(self, run: Run) -> tuple[Key, ...]:
        """What a run saves the values of: the places where earlier runs parted from the floor, and the parameters.

        A repeat saves that of its own setting's last run, a pinned run those of all sources that were varied alone.
        """
        if run.purpose == "repeat":
            mine = (
                t
                for t in reversed(self.trials.values())
                if run.setting.items() <= t.setting.items()
            )
            earlier = [each for each in mine if not (each.whole_epochs or each.edited)][:1]
        elif run.purpose == "pinned" and not run.setting:
            earlier, self._singles = self._singles, []
        else:
            return ()
        if self.floor is None or not earlier:
            return ()
        diverging_pairs = [part(self.floor, trial) for trial in earlier]
        first = {diverging.key for diverging in diverging_pairs if diverging is not None}
        return tuple(sorted({*first, *_parameters(self.floor.directory)}))

    def try_as_is(self, *, probed: bool) -> Trial:
        """Run the program as it is, with nothing pinned, in a fresh interpreter; `probed` or only counted."""
        return self._try_fresh({}, probed=probed)

    def try_pinned(self, names: Sequence[str]) -> Trial:
        """Run the program in a fresh interpreter, with these sources pinned and the others as they are."""
        return self._try_fresh({name: self.sources[name].pinned for name in names}, probed=True)

    def _try_fresh(self, levels: Setting, *, probed: bool) -> Trial:
        request = dataclasses.replace(
            self._request({}, Watch()), setting=dict(levels), probed=probed
        )
        environment = _environment({name: self.sources[name] for name in levels}, levels)
        (trial,) = self._make([{}], [Job(request=request, environment=environment, fresh=True)])
        if trial is None:
            raise BudgetSpentError("There is no time to run the program once more.")
        return trial

    def leave(self, name: str, why: str) -> None:
        """Leave a source as it is from now on."""
        self.sources = {each: source for each, source in self.sources.items() if each != name}
        self.left[name] = why

    def begin_again(self) -> Trial:
        """Make the first trial anew, which is the floor then."""
        self.site.begin_again()
        self.floor = self._whole_floor = None
        return self.first()

    def first(self) -> Trial:
        """Make the first trial, which is the floor: all pinned, in an interpreter that has imported nothing."""
        (floor,) = self.try_settings([({}, self.of_floor)], fresh=[True])
        return floor

    def launch(self) -> Trial | None:
        """Make the first trial of a script anew, started as a command; None where it does not train so either."""
        before = self.target, self.fresh
        self.target, self.fresh = as_command(self.target), True
        floor = self.begin_again()
        if floor.facts.steps:
            return floor
        self.target, self.fresh = before
        return None

    def surveyed(self, trial: Trial, name: str, found: Json) -> Trial:
        """A trial, with more in the survey of a source than it could know by itself."""
        return self._known(
            trial, dataclasses.replace(trial.facts, survey={**trial.facts.survey, name: found})
        )

    def spread(self, floor: Trial) -> Trial:
        """Have trials run on all machines that repeat the first one; it, with the kinds of machine there are."""
        facts = floor.facts
        machines = self.runner.spread(floor.digest or "", uses_gpu=bool(facts.cuda))
        return self._known(floor, dataclasses.replace(facts, machines=machines))

    def _known(self, trial: Trial, facts: Facts) -> Trial:
        known = dataclasses.replace(trial, ended=dataclasses.replace(trial.ended, facts=facts))
        self.trials[trial.id] = known
        if self.floor is trial:
            self.floor = known
        return known

    def move_to_memory(self) -> bool:
        """Have the trees of trials in memory, where the first trial wrote many files; it is then to be made anew."""
        return self.site.move_to_memory()

    def try_settings(
        self,
        settings: Sequence[tuple[Setting, Watch]],
        *,
        fresh: Sequence[bool] | None = None,
        whole_epochs: bool = False,
        edited: Mapping[str, str] | None = None,
    ) -> list[Trial]:
        """Run a batch of settings, each with what to observe beside the trace; `edited`: in a program with fixes.

        Raises:
            BudgetSpentError: there was no time for all.
        """
        made = self._try(settings, fresh=fresh, whole_epochs=whole_epochs, edited=edited)
        trials = [trial for trial in made if trial is not None]
        if len(trials) < len(made):
            raise BudgetSpentError("There was no time for all trials.")
        return trials

    def _try(
        self,
        settings: Sequence[tuple[Setting, Watch]],
        *,
        fresh: Sequence[bool] | None = None,
        whole_epochs: bool = False,
        edited: Mapping[str, str] | None = None,
    ) -> list[Trial | None]:
        """As `try_settings`; None for what there was no time for."""
        if edited and self.isolation.kind == "shared":
            raise InternalError(
                "A trial was to edit the user's own files.", where="oracle", why="writes are shared"
            )
        jobs = []
        for number, (setting, watch) in enumerate(settings):
            request = dataclasses.replace(
                self._request(setting, watch),
                whole_epochs=whole_epochs,
                edited=dict(edited or {}),
            )
            wants_fresh = self.fresh or (fresh is not None and fresh[number])
            jobs.append(
                Job(
                    request=request,
                    environment=self.environment(setting),
                    fresh=wants_fresh,
                    before_kernels=self.before_kernels
                    or any(
                        self.sources[name].at_first_kernel
                        for name in setting
                        if name in self.sources
                    ),
                    hangs_on_load=self.hangs_on_load(setting),
                    machine=self._machine(setting),
                )
            )
        trials = self._make([setting for setting, _ in settings], jobs)
        for trial, (_, watch) in zip(trials, settings, strict=True):
            failure = trial.facts.failure if trial is not None else None
            if trial and failure is not None and failure.ours and trial is not self.floor:
                self._check(trial, watch)
        return trials

    def _make(self, settings: Sequence[Setting], jobs: Sequence[Job]) -> list[Trial | None]:
        """Run jobs, but for those of which a trial is kept; None for what there was no time for."""
        first, kept = self.floor is None, self.kept
        keys = [kept.key(job, first=first) for job in jobs] if kept and self._keeps else []
        made: dict[int, Trial] = {}
        for number, key in enumerate(keys):
            taken = self._taken(key, jobs[number].request, first=first)
            if taken is not None:
                made[number] = self._left(settings[number], jobs[number], taken, kept=True)
                self.told(made[number])
        waiting = [number for number in range(len(jobs)) if number not in made]

        def done(place: int, ended: Ended) -> None:
            number = waiting[place]
            job = jobs[number]
            made[number] = trial = self._left(settings[number], job, ended)
            if first and trial.ended.seconds > LONG_SECONDS:
                self._keeps = True
            if kept and self._keeps:
                key = keys[number] if keys else kept.key(job, first=first)
                kept.put(key, job.request, trial.ended, first=first)
            self.told(trial)

        self.runner.run([jobs[number] for number in waiting], done)
        for number, job in enumerate(jobs):
            if number in made:
                self._add(made[number])
            else:
                self.site.discard(job.request)
        return [made.get(number) for number in range(len(jobs))]

    def _taken(self, key: str, request: TrialRequest, *, first: bool) -> Ended | None:
        """How a trial ended that is kept, its files in the place of the one that is asked for."""
        if self.kept is None or not self.kept.goes_on:
            return None
        taken = self.kept.take(key, request, first=first)
        if taken is None:
            return None
        ended, instant = taken
        if first:
            self.instant = instant
        return ended

    def _check(self, failed: Trial, watch: Watch) -> None:
        """Raise where a trial failed by the probe's doing: the same one without it trains.

        Not where it took a closer look, which the verdict does not hang on.
        """
        if watch.window is not None or self._resumed(failed.setting):
            return
        pinned = {name: source.pinned for name, source in self.sources.items()}
        again = self._try_fresh({**pinned, **failed.setting}, probed=False)
        if again.ended.status == "ok":
            raise defect(failed, "under the audit's probe")

    def _resumed(self, setting: Setting) -> bool:
        """Whether a trial under `setting` is the second half of a training."""
        return self._has(setting, lambda source: source.resumed)

    def _has(self, setting: Setting, level_of: Callable[[Source], str | None]) -> bool:
        """Whether a setting holds the level of some source's that is meant."""
        chosen = ((setting.get(name), level_of(source)) for name, source in self.sources.items())
        return any(level is not None and here == level for here, level in chosen)

    def _machine(self, setting: Setting) -> str:
        """The kind of machine that a setting asks for; empty for the first trial's."""
        return next(
            (
                level
                for name, level in setting.items()
                if name in self.sources
                and self.sources[name].places_trials
                and level != self.sources[name].pinned
            ),
            "",
        )

    def environment(self, setting: Setting) -> Environment:
        """What the interpreter of a trial under `setting` needs in its environment."""
        return _environment(self.sources, setting)

    def _request(self, setting: Setting, watch: Watch) -> TrialRequest:
        name = f"t{self._requested:02}"
        self._requested += 1
        floor = self.floor
        warm = floor is not None and self._has(setting, lambda source: source.after_first_run)
        resumed = self._resumed(setting)
        cut = floor.facts.cut if resumed and floor else None
        pinned = {name: source.pinned for name, source in self.sources.items()}
        isolation = self.isolation
        request = TrialRequest(
            directory=Path(name),
            target=self.target,
            tree=Tree(kind=isolation.kind, root=isolation.root, cwd=isolation.cwd),
            seed=self.seed,
            first=floor is None,
            warm=warm,
            kept=self.kept is not None and (self._keeps or floor is None),
            # A resumed program may count its epochs anew.
            steps=self.steps if cut is None or floor is None else floor.facts.steps,
            until_epoch=self.until_epoch if cut is None else None,
            setting={**pinned, **setting},
            watch=watch,
            plugins={
                name: place for name, place in installed().places.items() if name in self.sources
            },
            instant=self.instant,
            first_run_wrote=floor.facts.written if warm and floor else (),
            unpinned=floor.facts.unpinned if floor else {},
            half="second" if resumed else "whole",
            resume_args=self.resume_args,
            on_several=self.on_several,
            cut=cut,
            bystanders=floor.facts.bystanders if floor else (),
        )
        return self.site.place(request)

    def _left(self, setting: Setting, job: Job, ended: Ended, *, kept: bool = False) -> Trial:
        """A trial as it has ended; `kept`: it is one of another audit, whose files are in its place."""
        request = job.request
        ended = self.site.clear(request, ended, kept=kept)
        trace = request.directory / "trace"
        if ended.status == "ok" and not kept and request.cut is not None and self.floor is not None:
            halves.join(request, request.cut, straight=self.floor.trace)
        return Trial(
            id=request.directory.name,
            setting=dict(setting),
            directory=request.directory,
            ended=ended,
            digest=Trace.open(trace).outcome_digest()
            if ended.status == "ok" and request.probed
            else None,
            root=str(request.tree.map(request.tree.root)),
            whole_epochs=request.whole_epochs,
            edited=bool(request.edited),
        )

    def _add(self, trial: Trial) -> None:
        """Record a trial."""
        self.trials[trial.id] = trial
        if self.floor is None:
            self.floor = trial
        for name, why in trial.facts.failing.items():
            # What the other trials had in force, and this one had not, could be taken for another source's doing.
            if name not in self.floor.facts.failing:
                raise SourceFailedError.of(name, why)


def deciding_code(sources: Mapping[str, Source]) -> tuple[str, ...]:
    """The ids of those whose levels compiled code depends on."""
    return tuple(name for name, source in sources.items() if source.decides_code)


def _environment(sources: Mapping[str, Source], setting: Setting) -> Environment:
    """The variables that `sources` ask for, each at its level in `setting` or else pinned."""
    variables: dict[str, str] = {}
    for name, source in sources.items():
        variables.update(source.environment(setting.get(name, source.pinned)))
    return tuple(sorted(variables.items()))


def defect(trial: Trial, where: str) -> InternalError:
    """What to say of a program that the audit breaks."""
    failure = trial.facts.failure
    if failure is not None:
        shown = failure.whole or failure.what
    else:
        shown = f"its process {trial.ended.exit}\n{trial.ended.stacks or trial.ended.output}"
    return InternalError(
        f"the program trains by itself, but fails {where}: this is a defect of repro-audit\n{shown.rstrip()}",
        next_step="please report it, with the traceback above and the program, or the part of it that is shown",
    )
