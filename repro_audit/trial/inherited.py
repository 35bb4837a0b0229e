"""What DataLoader workers that begin as new interpreters are told of their trial: spawn hands on nothing but pickles.

Workers that are forked have it all anyway.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from repro_audit.trial.context import TrialContext
from repro_audit.trial.numbering import Numbering

if TYPE_CHECKING:
    from collections.abc import Mapping

_in_force = ExitStack()
"""What `begin` put in force, for as long as the worker lives."""

_trial: TrialContext | None = None


def remember(trial: TrialContext | None) -> None:
    """Let the workers of this process belong to a trial."""
    global _trial  # noqa: PLW0603 - pickling, which asks for it, knows no trial
    _trial = trial


def state() -> dict[str, Any] | None:
    """What a worker is told; it can be pickled. None in a process that is no trial's."""
    if _trial is None:
        return None
    return {
        "seed": _trial.seed,
        "setting": _trial.setting,
        "directory": _trial.directory,
        "root": _trial.root,
        "elsewhere": _trial.elsewhere,
        "instant": _trial.instant,
        "processes": Numbering(before=_trial.processes.before),
    }


def begin(state: Mapping[str, Any] | None) -> None:
    """Put those levels in force in a worker that have to be in each process of the program."""
    if state is None:
        return
    from repro_audit.sources import catalogue

    trial = TrialContext(**state)
    remember(trial)  # its own workers
    sources = catalogue()
    for name, level in trial.setting.items():
        if sources[name].in_workers:
            _in_force.enter_context(sources[name].apply(level, trial))
