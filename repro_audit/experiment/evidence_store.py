"""The evidence store: runs settings, keeps the evidence, and lets several plans share their batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from repro_audit.errors import BudgetSpentError
from repro_audit.experiment.design import (
    Conjunction,
    Factor,
    Oracle,
    Outcome,
    Plan,
    Purpose,
    Run,
    Setting,
    T,
)

Level = tuple[str, str]
"""A factor's id and one of its varied levels."""


@dataclass(slots=True, kw_only=True)
class EvidenceStore:
    """All that the trials have shown so far. Plans add to it, `judging` reads it."""

    factors: Mapping[str, Factor]
    floor: Outcome
    runs: int
    fresh: bool
    base: Setting = field(default_factory=dict)
    """Levels proven equal to pinned, whose interpreter is warm: tests are made on top of them."""
    shared: Setting = field(default_factory=dict)
    """Levels that are tried in one interpreter, where each needs one of its own: none of them is tried alone."""
    pinned: list[Outcome] = field(default_factory=list)
    """All-pinned runs other than the floor."""
    held: dict[Level, list[str]] = field(default_factory=dict)
    """Trials with this level, in company or not, that equalled the floor."""
    alone: dict[Level, list[Outcome]] = field(default_factory=dict)
    """What this level did with everything else pinned, or on top of the base."""
    conjunctions: list[Conjunction] = field(default_factory=list)
    flakes: list[tuple[Setting, Outcome]] = field(default_factory=list)
    """Groups that diverged once and, with no factor alone to blame, not again."""
    parted: list[tuple[Setting, Outcome]] = field(default_factory=list)
    """Groups that diverged, whatever was found in them."""
    removals: dict[str, list[tuple[str | None, Outcome]]] = field(default_factory=dict)
    """By the id of a suspect, runs with it taken out: the reference (None), and the levels that diverged."""

    def equal(self, outcome: Outcome) -> bool:
        """Whether a trial trained to its end and did just what the floor did."""
        return outcome.status == "ok" and outcome.digest == self.floor.digest

    def diverged(self, outcome: Outcome) -> bool:
        """Whether a trial trained to its end, and otherwise than the floor."""
        return outcome.status == "ok" and outcome.digest != self.floor.digest

    def run(self, settings: Sequence[Setting], purpose: Purpose) -> Plan[list[Outcome]]:
        """Run a batch of settings, just as they are, and keep nothing of it."""
        outcomes = yield [Run(setting=s, purpose=purpose, fresh=self.fresh) for s in settings]
        if purpose == "pinned" and not all(map(was_tried, outcomes)):
            runs = zip(settings, outcomes, strict=True)
            self.pinned += [each for s, each in runs if not s and was_tried(each)]
        return tried(outcomes)

    def observe(
        self, groups: Sequence[Setting], purpose: Purpose | None = None, *, based: bool = True
    ) -> Plan[list[Outcome]]:
        """Run a batch of groups, on top of the base unless told otherwise; keep what they show."""
        base = self.base if based else {}
        runs = [
            Run(
                setting={**base, **group},
                purpose=purpose or ("single" if len(group) == 1 else "group"),
                fresh=self.fresh,
            )
            for group in groups
        ]
        outcomes = yield runs
        for group, run, outcome in zip(groups, runs, outcomes, strict=True):
            if was_tried(outcome):
                self._keep(group, run.setting, outcome)
        return tried(outcomes)

    def _keep(self, group: Setting, setting: Setting, outcome: Outcome) -> None:
        if self.equal(outcome):
            for level in setting.items():
                if level[0] not in outcome.unpinned:
                    self.held.setdefault(level, []).append(outcome.trial)
        if len(group) == 1:
            (level,) = group.items()
            if level[0] not in outcome.unpinned or not self.equal(outcome):
                self.alone.setdefault(level, []).append(outcome)
        elif self.diverged(outcome):
            self.parted.append((group, outcome))

    def differing(self) -> list[tuple[Setting, Outcome]]:
        """The runs that diverged, each with what varied in it."""
        alone = [
            ({each: level}, outcome)
            for (each, level), runs in self.alone.items()
            for outcome in runs
        ]
        return [*self.parted, *(run for run in alone if self.diverged(run[1]))]

    def suspects(self) -> list[Factor]:
        """Return the factors that, on their own, did not equal the floor at least once."""
        ids = {
            level[0]
            for level, outcomes in self.alone.items()
            if not all(self.equal(outcome) for outcome in outcomes)
        }
        return [f for f in self.factors.values() if f.id in ids and not f.yardstick]

    def unsuspected(self, group: Setting) -> Setting:
        """Return what is left of a group when the suspects are pinned."""
        return without(group, {factor.id for factor in self.suspects()})

    def wanting(self, group: Setting, *, beside: Sequence[Setting] = ()) -> bool:
        """Whether a level of the group has yet to be seen to hold: once, or as often as a race is run.

        `beside` are groups about to be run.
        """
        racing = self.races(group)
        return any(
            len(self.held.get(level, ())) + sum(level in other.items() for other in beside)
            < (self.runs if level[0] in racing else 1)
            for level in group.items()
        )

    def unsteady(self, level: Level) -> bool:
        """Whether a level did one thing on one run, and another on the next."""
        digests = {outcome.digest for outcome in self.alone.get(level, [])}
        if level in self.held:
            digests.add(self.floor.digest)
        return len(digests) > 1

    def tally(self, level: Level) -> tuple[int, int]:
        """Count the runs with a level that diverged by its doing, and all that tell."""
        diverged = sum(map(self.diverged, self.alone.get(level, [])))
        return diverged, diverged + len(self.held.get(level, []))

    def races(self, group: Setting) -> list[str]:
        """Return the members whose varied level releases a race."""
        return [each for each, level in group.items() if self.factors[each].levels.races_at(level)]

    def known_conjunction(self, group: Setting) -> Setting | None:
        """Return a setting that is known to fail and would be part of the group's run."""
        levels = {**self.base, **group}.items()
        return next((c.setting for c in self.conjunctions if c.setting.items() <= levels), None)

    def troubled(self) -> bool:
        """Whether anything happened that calls for a look at the pinned runs."""
        return bool(self.suspects() or self.conjunctions or self.flakes)


def without(group: Setting, members: Iterable[str]) -> Setting:
    """Pin some members of a group."""
    gone = set(members)
    return {member: level for member, level in group.items() if member not in gone}


def was_tried(outcome: Outcome) -> bool:
    """Whether there was time for a run."""
    return outcome.status != "untested"


def tried(outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes.

    Raises:
        BudgetSpentError: there was no time for one of the runs, and so for no later one.
    """
    if not all(map(was_tried, outcomes)):
        raise BudgetSpentError("The time that was given is over.")
    return outcomes


def in_step(plans: Sequence[Plan[T]]) -> Plan[list[T]]:
    """Follow several plans side by side, each time joining what they ask for into one batch.

    Raises:
        BudgetSpentError: one of them did; by then all have kept what came of the batch.
    """
    results: dict[int, T] = {}
    asked: dict[int, list[Run]] = {}
    spent: list[BudgetSpentError] = []

    def advance(index: int, outcomes: list[Outcome] | None) -> None:
        plan = plans[index]
        asked.pop(index, None)
        try:
            asked[index] = next(plan) if outcomes is None else plan.send(outcomes)
        except StopIteration as stop:
            results[index] = stop.value
        except BudgetSpentError as error:
            spent.append(error)

    for index in range(len(plans)):
        advance(index, None)
    while asked:
        outcomes = iter((yield [run for index in sorted(asked) for run in asked[index]]))
        for index in sorted(asked):
            advance(index, list(islice(outcomes, len(asked[index]))))
        if spent:
            raise spent[0]
    return [results[index] for index in range(len(plans))]


def follow(plan: Plan[T], oracle: Oracle) -> T:
    """Follow a plan to its end; an empty batch never reaches the oracle."""
    try:
        runs = next(plan)
        while True:
            runs = plan.send(oracle.run(runs) if runs else [])
    except StopIteration as stop:
        result: T = stop.value
        return result
