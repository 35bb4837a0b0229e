"""Python's `random` is not seeded.

DOC
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

from repro_audit.source import Fix, Scope, Source, Verdict
from repro_audit.sources import _ambient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts
    from repro_audit.trial.context import TrialContext

NAME = "Python's random"


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Start the generator from the level's state, and note where the program seeds it."""
    _ambient.watch(random, "seed", "python", trial)
    with _ambient.vary("python", level, trial):
        yield


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Put the outcome in words."""
    return _ambient.judge(NAME, judgement, facts)


def fix(_facts: Facts) -> Fix:
    """Seed it where the program starts."""
    return Fix(
        summary="Seed it before anything draws from it, with the seed that build() was given.",
        snippet="import random\n\nrandom.seed(seed)",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=_ambient.PINNED,
    levels=_ambient.levels,
    apply=apply,
    judge=judge,
    fix=fix,
)
