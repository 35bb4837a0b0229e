"""An operation whose threads race gives other bits each time it runs.

DOC
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.trial.processes import die_with_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts
    from repro_audit.trial.context import TrialContext

PINNED, RELEASED = "deterministic", "as written, under load"


def levels(_facts: Facts) -> Levels:
    """The user's own setting, several times: a level can not force a race, only invite it."""
    return Levels(varied=(RELEASED,), race=True)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Switch deterministic algorithms on, or release them with a busy process beside the trial."""
    if level == PINNED:
        trial.when_imported("torch", _pin)
        yield
        return
    busy = _busy_process()
    try:
        yield
    finally:
        os.kill(busy, signal.SIGKILL)
        os.waitpid(busy, 0)


def _pin() -> None:
    """Deterministic algorithms with warnings only, against the program's own wish if need be.

    They also fill the memory of `torch.empty`, which is another source's business, so that is switched off.
    """
    torch = sys.modules["torch"]
    set_mode = torch.use_deterministic_algorithms
    set_mode(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False

    def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> Any:
        return set_mode(True, warn_only=warn_only or not mode)

    torch.use_deterministic_algorithms = use_deterministic_algorithms


def _busy_process() -> int:
    """A process that only takes processor time, so that the trial's threads finish in other orders."""
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        while True:
            pass
    return pid


def judge(judgement: Judgement, _facts: Facts) -> Verdict:
    """Say how many of how many runs differed."""
    differed, total = judgement.race or (0, 0)
    if judgement.status == "broke":
        return Verdict(
            status="broke",
            reason=f"{differed} of {total} runs differ from the deterministic algorithms' result; those agree",
        )
    reason = (
        judgement.note or "the program's own algorithms give the same as the deterministic ones"
    )
    return Verdict(status=judgement.status, reason=reason)


def fix(_facts: Facts) -> Fix:
    """Deterministic algorithms."""
    return Fix(
        summary="Use deterministic algorithms; an operation that has none then raises an error that names it.",
        snippet="import torch\n\ntorch.use_deterministic_algorithms(True)",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
)
