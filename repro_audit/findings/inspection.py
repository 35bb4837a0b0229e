"""Pinpointing: what broke is run again with every op and line watched, until the first cause is found.

Only the two settings of a broken pair are run again, and only around the step that broke. Where an op parts them, its
reference output is fed to the other run, so that a second, independent cause shows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import TypeAlias

from repro_audit.analysis.compare import Mismatch
from repro_audit.analysis.pinpoint import Cause, Run, address, alike_rows, pinpoint
from repro_audit.experiment import Setting
from repro_audit.storage.events import DETAIL, MAIN, Detail, processes, truncation
from repro_audit.storage.facts import Key, of_rank
from repro_audit.storage.reads import Suspect
from repro_audit.storage.trace import Phase
from repro_audit.storage.values import Magnitude, magnitude, open_values
from repro_audit.trial.oracle import DivergedPair, Trial, TrialOracle, part
from repro_audit.trial.request import VALUES, Watch, Window

MOST_ROUNDS = 3
"""How often the reference outputs of a race's ops known so far are fed in, to see whether others part the runs too.

Of what is forced, one run shows all ops that part the runs by themselves, and a second round what they hid."""
MOST_CAUSES = 5
MOST_OUTPUTS = 4
"""Outputs of an op that are fed and measured."""

Wanted: TypeAlias = "tuple[Setting, Watch]"
Plan: TypeAlias = "Generator[list[Wanted], list[Trial], Finding]"
"""An inspection under way: yields runs to make, is sent them, returns what it found."""
_Asked: TypeAlias = "tuple[int, int, tuple[tuple[str, str], ...], Watch]"
"""A run that a plan wants: in which turn, at which place of it, and the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two trials that were watched."""

    reference: Trial
    diverged: Trial
    suspect: Suspect | None = None

    @property
    def failure(self) -> str:
        """Why one of them did not train to the end of the window; empty where both did."""
        for trial in (self.reference, self.diverged):
            if trial.ended.status != "ok":
                failure = trial.facts.failure
                return f"watched op by op, a run failed: {failure.what if failure else trial.ended.exit}"
        return ""

    @property
    def first(self) -> Mismatch | None:
        """The first observation that differs."""
        diverging = part(self.reference, self.diverged)
        return diverging.difference.first if diverging is not None else None

    @property
    def truncated(self) -> str:
        """Why lines ended before the training did, in either."""
        directories = (trial.directory / DETAIL / MAIN for trial in (self.reference, self.diverged))
        return next(filter(None, map(truncation, directories)), "")

    def cause(self) -> Cause | None:
        """What parts them; None where nothing does, or nothing that was watched."""
        first = self.first
        if first is None:
            return None
        return pinpoint(
            _events(self.reference),
            _events(self.diverged),
            first,
            trace=self.reference.trace,
            suspect=self.suspect,
        )

    def located(self, cause: Cause) -> Located:
        """A cause, and where it stands in the program; of an op in both runs, the keys of its outputs in every step."""
        event = cause.event
        if event is None or cause.process != MAIN:
            return Located(cause=cause)
        detail = Detail.open(self.reference.directory / DETAIL / MAIN)
        alike = alike_rows(detail, event.index)
        keys: list[Key] = []
        if cause.kind == "op":
            for step, phase, name, occurrence in (address(detail, row) for row in alike):
                keys += [(step, phase, f"{name}|{n}", occurrence) for n in range(MOST_OUTPUTS)]
        return Located(cause=cause, outputs=tuple(keys), rank=alike[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What parts two runs, or why that is not known."""

    causes: tuple[Located, ...] = ()
    """The first in execution order, then those that part the runs by themselves once it is out of the way."""
    vanished: bool = False
    """With every op and line watched, the two runs agree."""
    reason: str = ""
    """Why nothing was found; or what the finding does not cover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A cause, and how to have the values of the op that it is."""

    cause: Cause
    outputs: tuple[Key, ...] = ()
    """Of an op in both runs: the keys of its outputs in every step of the window, as many as it may have."""
    rank: int = 0
    """When the program first did the like: which of several causes comes first."""
    size: Magnitude | None = None
    """Of an op's first output that differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """A pair that parts, and how to have it again."""

    diverging: DivergedPair
    reference: Setting
    """What to run against the diverged setting."""
    race: bool
    """The runs part by chance: at another step each time, or not at all."""
    runs: int
    """How often a race is run before it is given up."""
    suspect: Suspect | None = None
    """What the line to blame does, where the source says that."""

    @property
    def chances(self) -> int:
        """How often to run the diverged setting."""
        return self.runs if self.race else 1


def inspect(
    suspicions: Mapping[str, Suspicion],
    oracle: TrialOracle,
    told: Callable[[str, Finding], None] = lambda _name, _finding: None,
    *,
    one_by_one: bool = False,
) -> dict[str, Finding]:
    """Find what parts each pair, and have each `told` once it is found.

    Pairs are looked into side by side, or `one_by_one`, so that the first is told of soon. What several ask for in the
    same turn is run once.
    """
    findings: dict[str, Finding] = {}
    made: dict[_Asked, Trial] = {}
    for names in [[name] for name in suspicions] if one_by_one else [[*suspicions]]:
        plans = {name: _inspect(suspicions[name]) for name in names}
        answers: dict[str, list[Trial] | None] = dict.fromkeys(plans)
        for turn in count():
            asked: dict[str, list[_Asked]] = {}
            for name, trials in answers.items():
                plan = plans[name]
                try:
                    wanted = next(plan) if trials is None else plan.send(trials)
                except StopIteration as stop:
                    findings[name] = stop.value
                    told(name, stop.value)
                else:
                    asked[name] = [
                        (turn, place, tuple(sorted(setting.items())), watch)
                        for place, (setting, watch) in enumerate(wanted)
                    ]
            if not asked:
                break
            _make(asked, made, oracle)
            answers = {name: [made[each] for each in mine] for name, mine in asked.items()}
    return findings


def _make(
    asked: Mapping[str, list[_Asked]], made: dict[_Asked, Trial], oracle: TrialOracle
) -> None:
    """Run what is asked for and was not made yet."""
    new = [each for each in dict.fromkeys(chain(*asked.values())) if each not in made]
    if new:
        trials = oracle.try_settings([(dict(setting), watch) for *_, setting, watch in new])
        made.update(zip(new, trials, strict=True))


def _inspect(suspicion: Suspicion) -> Plan:
    """One pair: the window of the step that broke, then from the beginning, where that does not tell."""
    diverging = suspicion.diverging
    first = diverging.difference.first
    loading = diverging.reference.facts.runs == diverging.diverged.facts.runs == 1
    # Batches are drawn ahead of their steps, and a race parts the runs at another step each time.
    early = first.phase in {Phase.INIT, Phase.DATA} or suspicion.race
    last = max(first.step, diverging.reference.facts.steps - 1) if suspicion.race else first.step
    rank, _ = of_rank(first.name)
    windows = [Window(first=0 if early else first.step, last=last, loading=loading, rank=rank)]
    if not early and first.step > 0:
        windows.append(Window(first=0, last=first.step, loading=loading, rank=rank))
    finding = Finding()
    for window in windows:
        finding = yield from _look(suspicion, window)
        if finding.causes and not finding.causes[0].cause.incomplete:
            break
    return finding


def _look(suspicion: Suspicion, window: Window) -> Plan:
    """Run the pair with a window, a race again until it shows; then ask for what else parts it."""
    settings = (suspicion.reference, suspicion.diverging.diverged.setting)
    reference, diverged = yield [(setting, Watch(window=window)) for setting in settings]
    pair = Pair(reference=reference, diverged=diverged, suspect=suspicion.suspect)
    for _ in range(suspicion.chances - 1):
        if pair.failure or pair.first is not None:
            break
        (again,) = yield [(settings[1], Watch(window=window))]
        pair = Pair(reference=reference, diverged=again, suspect=suspicion.suspect)
    if pair.failure:
        return Finding(reason=pair.failure)
    cause = pair.cause()
    if cause is None:
        parted = pair.first is not None
        reason = "no op, line, draw or file that was watched differs before it" if parted else ""
        return Finding(vanished=not parted, reason=pair.truncated or reason)
    found = _distinct([pair.located(each) for each in (cause, *cause.independent)])
    return (yield from _others(suspicion, window, found, pair.truncated))


def _distinct(found: list[Located]) -> list[Located]:
    """Each op once, though it may part the runs in several steps."""
    by_op = {each.outputs or (number,): each for number, each in reversed([*enumerate(found)])}
    return [each for each in found if each in by_op.values()][:MOST_CAUSES]


def _others(suspicion: Suspicion, window: Window, found: list[Located], truncated: str) -> Plan:
    """Feed in the reference outputs of the ops that part the runs, measure them, and see what else does.

    Say `index_add` in line 20 races, and so does `scatter` in line 35, which did not show since its inputs differed.
    The reference runs again and saves what `index_add` left; then the other run finds that in place of its own output.
    If both part at `scatter` now, whose inputs are equal, it is a second cause, and in the next round both are fed.
    If they agree, `index_add` was all. The values that were saved on the way give the sizes.
    """
    settings = (suspicion.reference, suspicion.diverging.diverged.setting)
    sizes: dict[Key, Magnitude] = {}
    for _ in range(MOST_ROUNDS if suspicion.race else 1):
        keys = tuple(key for each in found for key in each.outputs)
        if not keys or len(found) >= MOST_CAUSES:
            break
        (reference,) = yield [(settings[0], Watch(window=window, capture=keys))]
        fed_by = str(reference.directory / VALUES)
        watch = Watch(window=window, capture=keys, feed=keys, fed_by=fed_by)
        another = None
        # Of a race, a run may not part where the first one did.
        for _ in range(suspicion.chances):
            (diverged,) = yield [(settings[1], watch)]
            pair = Pair(reference=reference, diverged=diverged, suspect=suspicion.suspect)
            sizes = {**_sizes(pair, keys), **sizes}
            cause = None if pair.failure else pair.cause()
            if cause is not None:
                another = pair.located(cause)
                break
        if another is None or any(each.outputs == another.outputs for each in found):
            break
        found.append(another)
    if suspicion.race:
        found.sort(key=lambda each: each.rank)
    measured = (
        replace(each, size=next((sizes[key] for key in each.outputs if key in sizes), None))
        for each in found
    )
    return Finding(causes=tuple(measured), reason=truncated)


def _sizes(pair: Pair, keys: Iterable[Key]) -> dict[Key, Magnitude]:
    """By how much outputs differ, where both runs saved them and they do."""
    ours, theirs = (
        open_values(trial.directory / VALUES) for trial in (pair.reference, pair.diverged)
    )
    sizes = {
        key: magnitude(ours[key], theirs[key]) for key in keys if key in ours and key in theirs
    }
    return {key: size for key, size in sizes.items() if size.mismatched}


def _events(trial: Trial) -> Run:
    """What every process of a trial wrote."""
    found = {name: Detail.open(path) for name, path in processes(trial.directory / DETAIL).items()}
    return Run(main=found.pop(MAIN), workers=found)
