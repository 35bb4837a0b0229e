"""Programs whose causes of divergence are planted, and what may be wrong with a result about them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from repro_audit.experiment import (
    Factor,
    Judgement,
    LevelOutcome,
    Levels,
    Outcome,
    Result,
    Run,
    Setting,
    experiment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Level = tuple[str, str]
PINNED = "pinned"
REMOVED = "removed"


@dataclass(kw_only=True)
class Program:
    """An oracle over a program whose causes of divergence are known."""

    culprits: frozenset[Level] = frozenset()
    conjunctions: tuple[frozenset[Level], ...] = ()
    crashes: frozenset[Level] = frozenset()
    races: dict[str, float] = field(default_factory=dict)
    """By id: how often its released level wins the race, otherwise than the floor."""
    variants: int = 3
    """In how many ways a race, once won, may end."""
    carried: dict[Level, str] = field(default_factory=dict)
    """A level and the factor whose removal makes it harmless."""
    noisy: Callable[[int], bool] = lambda _number: False
    """Whether the trial of that number differs for no reason."""
    unfaithful: bool = False
    """The fast path computes something else than a fresh interpreter."""
    seed: int = 0
    trials: dict[str, tuple[Run, Outcome]] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)

    hidden: frozenset[Level] = frozenset()
    """Culprits that show only in what noise reaches too."""
    unpinned: frozenset[str] = frozenset()
    """The factors that are at fault where a trial is noisy."""
    extent: str = "all"

    def outcome(self, trial: str) -> Outcome:
        """What a trial showed."""
        return self.trials[trial][1]

    def narrowed(self, trials: Sequence[str]) -> Narrowed | None:
        """See only what these have in common."""
        return Narrowed(self, tuple(trials))

    def floor(self) -> Outcome:
        """Make the first trial: all pinned, in a fresh interpreter."""
        return self._trial(Run(setting={}, purpose="floor", fresh=True))

    def run(self, runs: Sequence[Run]) -> list[Outcome]:
        """Answer a batch."""
        assert runs, "an empty batch is not worth a call"
        self.batches.append(len(runs))
        return [self._trial(run) for run in runs]

    def _trial(self, run: Run) -> Outcome:
        number = len(self.trials)
        outcome = self._outcome(f"t{number:02}", run, number)
        self.trials[outcome.trial] = (run, outcome)
        return outcome

    def _outcome(self, trial: str, run: Run, number: int) -> Outcome:
        levels = {member: level.partition(", ")[0] for member, level in run.setting.items()}
        removed = {member for member, level in run.setting.items() if level.endswith(REMOVED)}
        if not self.crashes.isdisjoint(levels.items()):
            return Outcome(trial=trial, status="crashed", digest=None)
        effects = [
            str(level)
            for level in sorted(self.culprits & levels.items())
            if not removed & {level[0], self.carried.get(level)}
        ]
        effects += [str(sorted(each)) for each in self.conjunctions if each <= levels.items()]
        effects += [f"without {member}" for member in sorted(removed)]
        chance = random.Random(f"{self.seed} {number}")
        effects += [
            f"race {member} {chance.randrange(self.variants)}"
            for member in self.races
            if member in levels and member not in removed and chance.random() < self.races[member]
        ]
        effects += [f"noise {number}"] if self.noisy(number) else []
        effects += ["forked"] if self.unfaithful and not run.fresh else []
        unpinned = self.unpinned if self.noisy(number) else frozenset[str]()
        return Outcome(trial=trial, status="ok", digest="; ".join(effects), unpinned=unpinned)

    def diverged(self, trial: str) -> bool:
        """Whether a trial trained and differs from the floor."""
        outcome = self.trials[trial][1]
        return outcome.status == "ok" and outcome.digest != self.trials["t00"][1].digest


@dataclass(kw_only=False)
class Narrowed:
    """The program seen without what differs between some trials: parts of digests that not all of them have."""

    program: Program
    common: tuple[str, ...]
    extent: str = "a part"

    def outcome(self, trial: str) -> Outcome:
        """What a trial showed, but for its noise, and what noise covers."""
        outcome = self.program.outcome(trial)
        if outcome.digest is None:
            return outcome
        parts = [frozenset(self._parts(self.program.outcome(each).digest)) for each in self.common]
        luck = parts[0].union(*parts) - parts[0].intersection(*parts)
        kept = [part for part in self._parts(outcome.digest) if part not in luck]
        return replace(outcome, digest="; ".join(kept))

    def _parts(self, digest: str | None) -> list[str]:
        covered = {str(level) for level in self.program.hidden}
        return [
            part
            for part in (digest or "").split("; ")
            if part and part not in covered and not part.startswith("noise")
        ]

    def run(self, runs: Sequence[Run]) -> list[Outcome]:
        """Answer a batch."""
        outcomes = self.program.run(runs)
        return [self.outcome(each.trial) if each.trial else each for each in outcomes]

    def narrowed(self, trials: Sequence[str]) -> Narrowed | None:
        """See less."""
        return Narrowed(self.program, (*self.common, *trials))


def audit(
    program: Program, factors: Sequence[Factor], *, runs: int = 3, fresh: bool = False
) -> Result:
    return experiment(factors, program.floor(), program, runs=runs, fresh=fresh)


def one_at_a_time(factors: Sequence[Factor], program: Program) -> Result:
    """Vary each level alone, blame what differs."""
    floor = program.floor()
    judgements = {}
    for factor in factors:
        runs = [Run(setting={factor.id: level}, purpose="single") for level in factor.levels.varied]
        outcomes = program.run(runs) if runs else []
        levels = tuple(
            LevelOutcome(
                level=level,
                diverged=outcome.digest != floor.digest,
                trial=outcome.trial,
                status=outcome.status,
            )
            for level, outcome in zip(factor.levels.varied, outcomes, strict=True)
        )
        guilty = [level.trial for level in levels if level.diverged and level.trial]
        judgements[factor.id] = Judgement(
            id=factor.id,
            status="broke" if guilty else "held",
            levels=levels,
            confidence="proven" if guilty else None,
            pair=(floor.trial, guilty[0]) if guilty else None,
        )
    return Result(judgements=judgements)


def factor(name: str, *levels: str, **words: object) -> Factor:
    scope = str(words.pop("scope", "rerun"))
    found = Levels(varied=levels or ("v0",), **words)  # type: ignore[arg-type]
    return Factor(id=name, scope=scope, pinned=PINNED, levels=found)


@st.composite
def many_factors(draw: st.DrawFn, *, at_most: int = 12) -> list[Factor]:
    factors = []
    for number in range(draw(st.integers(0, at_most))):
        levels = [f"v{level}" for level in range(draw(st.integers(1, 3)))]
        scope = draw(st.sampled_from(["rerun", "rerun", "settings", "portable"]))
        kind = draw(st.sampled_from(["", "", "", "alone", "interpreters", "both", "race"]))
        words: dict[str, object] = {kind: True} if kind in {"alone", "race"} else {}
        if kind == "interpreters":
            words = {"interpreters": tuple(levels)}
        elif kind == "both":
            words = {"interpreters": tuple(levels[:1]), "alone": True}
        factors.append(factor(f"f{number:02}", *levels, scope=scope, **words))
    return factors


def levels_of(factors: Sequence[Factor]) -> list[Level]:
    """Return the levels of the factors that are no races: those force their outcome."""
    return [
        (each.id, level) for each in factors if not each.levels.race for level in each.levels.varied
    ]


# What may be wrong with a result


def wrongly_blamed(result: Result, guilty: set[str]) -> set[str]:
    return {name for name, each in result.judgements.items() if each.status == "broke"} - guilty


def overlooked(result: Result, guilty: set[str]) -> set[str]:
    return {name for name in guilty if result.judgements[name].status != "broke"}


def unproven(result: Result) -> set[str]:
    blamed = {name: each for name, each in result.judgements.items() if each.status == "broke"}
    return {name for name, each in blamed.items() if each.confidence != "proven"}


def interactions(result: Result) -> list[Setting]:
    """List the settings of several factors that diverge only together, each once."""
    found: list[Setting] = []
    for each in result.judgements.values():
        if each.together is not None and each.together not in found:
            found.append(each.together)
    return found


def baseless(program: Program, result: Result) -> list[str]:
    """List the judgements that their own trials do not bear out."""
    undone = any(
        run.setting == {} and not program.diverged(trial)
        for trial, (run, _) in program.trials.items()
        if run.purpose == "pinned"
    )
    wrong = []
    for name, each in result.judgements.items():
        if each.pair and not (each.pair[0] == "t00" and program.diverged(each.pair[1])):
            wrong.append(f"{name}: the pair is none")
        if each.repeat and not (
            program.diverged(each.repeat) and each.repeat not in (each.pair or ())
        ):
            wrong.append(f"{name}: the repeat is none")
        if each.confidence == "proven" and not (each.repeat and each.undone and undone):
            wrong.append(f"{name}: proven without a repeat or a pinned run")
        wrong += [
            f"{name}: {level.level} held in a run that did not have it, or diverged"
            for level in each.levels
            if level.diverged is False and not each.note and level.trial
            if program.diverged(level.trial)
            or program.trials[level.trial][0].setting.get(name) != level.level
        ]
    return wrong


def most_trials(factors: Sequence[Factor], guilty: int) -> int:
    """Bound the trials of plain culprits: logarithmic for each, linear in the levels that run alone."""
    levels = max((len(each.levels.varied) for each in factors), default=0)
    alone = sum(
        3 * len(each.levels.varied) for each in factors if each.levels.alone or each.levels.race
    )
    depth = len(factors).bit_length()
    return 12 + alone + 3 * levels + guilty * (depth + levels + 4)
