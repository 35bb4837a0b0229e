"""PyTorch's CPU generator is not seeded.

DOC
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from repro_audit.source import Fix, Scope, Source, Verdict
from repro_audit.sources import _ambient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts
    from repro_audit.trial.context import TrialContext

NAME = "PyTorch's CPU generator"


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Start the generator from the level's state, and note where the program seeds it."""
    trial.when_imported(
        "torch", lambda: _ambient.watch(sys.modules["torch"], "manual_seed", "torch", trial)
    )
    with _ambient.vary("torch", level, trial):
        yield


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Put the outcome in words."""
    return _ambient.judge(NAME, judgement, facts)


def fix(_facts: Facts) -> Fix:
    """Seed it where the program starts."""
    return Fix(
        summary="Seed it before the model is built and the loader is iterated.",
        snippet="import torch\n\ntorch.manual_seed(seed)",
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
