"""State that outlives a training run in its process changes the next run there.

DOC
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from repro_audit.source import Fix, Levels, Scope, Source, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.facts import Facts
    from repro_audit.trial.context import TrialContext

PINNED, SECOND = "fresh process", "second run"


def levels(_facts: Facts) -> Levels:
    """The second of two runs in one process, with every generator put back in between."""
    return Levels(varied=(SECOND,))


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Have the program run twice in this process; the second run is traced."""
    if level == SECOND:
        trial.runs = 2
    yield


def fix(_facts: Facts) -> Fix:
    """Make the state, or reset it, in build()."""
    return Fix(
        summary="Make all state inside build(), or reset it there: module-level generators, counters and caches, "
        "and default arguments, live as long as the process. Otherwise start a new process for each run.",
        snippet="def build():\n"
        "    generator = torch.Generator().manual_seed(0)  # not at module level\n"
        "    cache.clear()",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=in_words(
        held="a second run in the same process, reseeded, gives the same",
        broke="a second run in the same process differs, though every ambient generator was put back",
    ),
    fix=fix,
)
