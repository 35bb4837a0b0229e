"""The number of intra-op threads decides how sums are split, and so the bits.

DOC
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from repro_audit.source import Fix, Levels, Scope, Source, in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.facts import Facts
    from repro_audit.trial.context import TrialContext

PINNED = "as is"


def levels(facts: Facts) -> Levels:
    """One, two, and twice the machine's cores; without the number that the program runs with."""
    more = 2 * max(os.cpu_count() or 1, 2)
    return Levels(varied=tuple(str(count) for count in (1, 2, more) if count != facts.threads))


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Set the number before the target is loaded; a program that sets its own overrides it, as on any machine."""
    if level != PINNED:
        trial.when_imported("torch", lambda: sys.modules["torch"].set_num_threads(int(level)))
    yield


def fix(facts: Facts) -> Fix:
    """Fix the number in the program."""
    return Fix(
        summary="Fix the number of threads in the program, so that every machine splits the work alike.",
        snippet=f"import torch\n\ntorch.set_num_threads({facts.threads})",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.PORTABLE,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=in_words(
        held="other numbers of intra-op threads change nothing",
        broke="another number of intra-op threads gives other bits; PyTorch takes it from the machine's cores",
    ),
    fix=fix,
)
