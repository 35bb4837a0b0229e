"""What several trials have in common, and other trials seen by that alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import xxhash

from repro_audit.experiment import Outcome, Run
from repro_audit.storage.facts import Key
from repro_audit.storage.trace import COLUMNS, Observation, Role, Trace

Contents = tuple[str, bytes]
"""The form and the digest of an observation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """Outcomes that some trials share."""

    contents: Mapping[Key, Contents]
    of: int
    """How many outcomes the first of them has."""

    @classmethod
    def among(cls, traces: Sequence[Trace]) -> Common:
        """What all traces hold alike."""
        first, *others = [_contents(trace) for trace in traces]
        shared = {
            key: found
            for key, found in first.items()
            if all(other.get(key) == found for other in others)
        }
        return cls(contents=shared, of=len(first))

    @property
    def extent(self) -> str:
        """How much it is, in words."""
        last = max((key[0] for key in self.contents), default=0)
        return f"{len(self.contents):,} of {self.of:,} values that were compared, up to step {last}"

    def digest(self, trace: Trace) -> str:
        """One digest of what a trace has in these places."""
        mine = _contents(trace)
        total = xxhash.xxh3_128()
        for key in self.contents:
            meta, digest = mine.get(key, ("missing", b""))
            total.update(f"{key} {meta} ".encode("utf-8", "surrogatepass") + digest)
        return total.hexdigest()

    def only(self, trace: Trace) -> Trace:
        """A trace without what lies outside of it."""
        kept = np.fromiter(
            (row.role is Role.OUTCOME and _key(row) in self.contents for row in trace),
            dtype=np.bool_,
            count=len(trace),
        )
        return replace(trace, **{name: getattr(trace, name)[kept] for name, _ in COLUMNS})


def _key(row: Observation) -> Key:
    return (row.step, int(row.phase), row.name, row.occurrence)


def _contents(trace: Trace) -> dict[Key, Contents]:
    return {_key(row): (row.meta, row.digest) for row in trace if row.role is Role.OUTCOME}


class Whole(Protocol):
    """An oracle that sees all of each trial."""

    def run(self, runs: Sequence[Run]) -> list[Outcome]:
        """Run a batch of settings."""
        ...

    def outcome(self, trial: str) -> Outcome:
        """What a trial showed."""
        ...

    def trace(self, trial: str) -> Trace:
        """What was observed in a trial."""
        ...

    def narrowed(self, trials: Sequence[str]) -> CommonOracle | None:
        """See only what trials have in common; None where that is nothing."""
        ...


class CommonOracle:
    """Runs the target as another oracle does, and sees only what some trials have in common."""

    def __init__(self, oracle: Whole, trials: Sequence[str], common: Common) -> None:
        self._oracle = oracle
        self._trials = tuple(trials)
        self._common = common
        self.extent = common.extent

    def run(self, runs: Sequence[Run]) -> list[Outcome]:
        """Run a batch of settings."""
        outcomes = self._oracle.run(runs)
        return [self.outcome(each.trial) if each.trial else each for each in outcomes]

    def outcome(self, trial: str) -> Outcome:
        """What a trial showed, in these places."""
        outcome = self._oracle.outcome(trial)
        if outcome.digest is None:
            return outcome
        seen = self._common.digest(self._oracle.trace(trial))
        return replace(outcome, digest=seen)

    def narrowed(self, trials: Sequence[str]) -> CommonOracle | None:
        """See only what these trials have in common too."""
        return self._oracle.narrowed([*self._trials, *trials])
