"""The seed does not reach the result, or not all of it.

DOC
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from repro_audit.source import Fix, Levels, Scope, Source, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts
    from repro_audit.trial.context import TrialContext

PINNED, OTHER = "A", "B"


def levels(_facts: Facts) -> Levels:
    """The next seed, which is expected to change the trace."""
    return Levels(varied=(OTHER,), alone=True)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Give build() and every ambient generator the next seed."""
    if level == OTHER:
        trial.seed += 1
        trial.seeds.update({library: seed + 1 for library, seed in trial.seeds.items()})
    yield


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """A result that moves with the seed is what one wants; a seed that is taken and ignored is not."""
    if judgement.status == "broke":
        return Verdict(status="held", reason="another seed gives another result, as it should")
    if judgement.status != "held":
        return Verdict(status=judgement.status, reason=judgement.note or "")
    if facts.accepts_seed:
        return Verdict(
            status="broke", reason="build() takes a seed, but another seed changes nothing"
        )
    if facts.reseeds:
        return Verdict(
            status="held", reason="the program sets its own seed, so the audit's changes nothing"
        )
    return Verdict(status="held", reason="the program draws no random numbers that a seed reaches")


def fix(_facts: Facts) -> Fix:
    """Use the seed."""
    return Fix(
        summary="Seed every generator with the seed that build() is given.",
        snippet="from repro_audit.rng import seed_everything\n\n\n"
        "def build(seed):\n    seed_everything(seed)\n    ...",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.NONE,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
)
