"""The words of the experiment: what may vary, what was run, what came out, what follows."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

T = TypeVar("T")

Setting = Mapping[str, str]
"""Source id to level. Only what differs from pinned is listed: `{}` is all-pinned."""

Purpose = Literal["floor", "group", "single", "repeat", "race", "removal", "pinned"]
RunStatus = Literal["ok", "crashed", "timeout", "no-steps", "untested"]
"""`untested`: there was no time left for it."""
LevelStatus = RunStatus
Status = Literal["broke", "held", "error", "untested"]
Confidence = Literal["proven", "suspected"]
Undone = Literal["pin", "removal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """The varied levels of a source that apply to one program on one machine, and how to try them."""

    varied: tuple[str, ...] = ()
    race: bool = False
    """The varied level does not force an outcome: it is released several times."""
    alone: bool = False
    """Expected to change the trace, so not tried in a group."""
    interpreters: tuple[str, ...] = ()
    """Varied levels that need an interpreter of their own, which costs an import of torch, and are expected to hold."""
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By varied level: levels that are tried only where it diverged, to tell which part of it did that."""
    removal: str | None = None
    """The level that takes the suspect out (or applies the fix): the pair that diverged must then agree."""
    judged_by: tuple[str, str] | None = None
    """Another source and its level whose run is this source's varied run too."""
    unpinnable: str | None = None
    """A varied level that moves what no level pins: where it diverges, so may runs that vary anything else."""
    forced: bool = False
    """Of a race: the varied level also forces an outcome, so released runs that agree convict as well."""
    released: tuple[str, ...] = ()
    """Of a forced race: the levels that force nothing, where the others do without fail: those are run once."""
    masks_others: tuple[str, ...] = ()
    """Varied levels under which other sources can not show: without workers, nothing that happens in one."""

    def races_at(self, level: str | None) -> bool:
        """Whether runs at a level need not agree."""
        return self.race and (not self.released or level in self.released)

    @property
    def open(self) -> str:
        """The first varied level that hides no other factor, if there is one."""
        return next(
            (level for level in self.varied if level not in self.masks_others), self.varied[0]
        )

    def removed(self, level: str) -> str:
        """Name the level that varies as `level` does, but with the suspect taken out."""
        return f"{level}, {self.removal}"

    def of_round(self, index: int) -> str:
        """Return the varied level for a round of group tests; few levels come round again."""
        return self.varied[index % len(self.varied)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A source as the experiment sees it: an id, a pinned level, and levels to try instead."""

    id: str
    scope: str
    """`rerun`, `settings`, `portable`, or `none`: a yardstick, which is run but never accused."""
    pinned: str
    levels: Levels

    @property
    def grouped(self) -> bool:
        """Whether it may be varied in one trial with others."""
        return bool(self.levels.varied) and not self.levels.alone and not self.yardstick

    @property
    def yardstick(self) -> bool:
        """Whether it is expected to change the result, and so is no accusation."""
        return self.scope == "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A trial to be made."""

    setting: Setting
    purpose: Purpose
    fresh: bool = False
    """In a fresh interpreter, not by the fast path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a trial showed; the digest stands for the whole trace."""

    trial: str
    status: RunStatus
    digest: str | None
    unpinned: frozenset[str] = frozenset()
    """The factors whose level could not be kept in force in this trial."""


class Oracle(Protocol):
    """Whoever makes the trials."""

    extent: str
    """How much of a trial the digests stand for, in words."""

    def narrowed(self, trials: Sequence[str]) -> Oracle | None:
        """See only what trials have in common; None where that is nothing."""
        ...

    def outcome(self, trial: str) -> Outcome:
        """Return what a trial that was made shows of what is seen."""
        ...

    def run(self, runs: Sequence[Run]) -> list[Outcome]:
        """Make a batch of trials, side by side if it likes, and return the outcomes in order."""
        ...


Plan = Generator[list[Run], list[Outcome], T]
"""A part of the experiment: it yields batches of runs, is sent their outcomes, returns a `T`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelOutcome:
    """What one varied level did to the program."""

    level: str
    diverged: bool | None
    """None where no trial of the level trained to its end."""
    trial: str | None
    status: LevelStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the experiment concludes about one factor, and on what evidence."""

    id: str
    status: Status
    levels: tuple[LevelOutcome, ...] = ()
    confidence: Confidence | None = None
    pair: tuple[str, str] | None = None
    """The reference trial and one that diverged from it."""
    repeat: str | None = None
    """A second trial that diverged."""
    race: tuple[int, int] | None = None
    """How many released runs differed from the floor, of how many."""
    undone: Undone | None = None
    """What made the divergence go away: the pinned level, or taking the suspect out."""
    removal_pair: tuple[str, str] | None = None
    """The pair again with the suspect taken out."""
    blamed: str | None = None
    """The more specific factor that took this one's blame."""
    together: Setting | None = None
    """The smallest setting that diverges, where this factor alone holds."""
    note: str | None = None
    unpinned: bool = False
    """Suspected because its level could not be kept in force in pinned runs that differ."""
    narrowed: bool = False
    """Judged by what pinned runs have in common only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All judgements, in the order of the factors, and what no factor accounts for."""

    judgements: dict[str, Judgement]
    unexplained: tuple[str, str] | None = None
    """Two trials that differ with no factor to blame. Where pinned runs differ, nothing was judged."""
    noise: tuple[str, ...] = ()
    """Pinned trials that do not agree."""
    faithful: bool = True
    """False where the fast path differs from fresh interpreters: start over with `fresh=True`."""
    spent: bool = False
    """There was no time for all runs: what is untested was not got to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conjunction:
    """A smallest setting of several factors that fails only as a whole."""

    setting: Setting
    failures: tuple[Outcome, ...] = field(default_factory=tuple)
