"""The generators of the CUDA devices are not seeded.

DOC
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources import _ambient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts
    from repro_audit.trial.context import TrialContext


def levels(facts: Facts) -> Levels | str:
    """As the other generators, where there is a device."""
    return _ambient.levels(facts) if facts.cuda else "no CUDA device"


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Start every device's generator from the level's state."""
    with _ambient.vary("cuda", level, trial):
        yield


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Put the outcome in words."""
    return _ambient.judge("the CUDA devices' generators", judgement, facts)


def fix(_facts: Facts) -> Fix:
    """Seed them where the program starts."""
    return Fix(
        summary="Seed all devices; torch.manual_seed does, where nothing seeds a device later.",
        snippet="import torch\n\ntorch.manual_seed(seed)\ntorch.cuda.manual_seed_all(seed)",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=_ambient.PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
)
