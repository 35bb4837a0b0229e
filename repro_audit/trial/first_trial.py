"""Whose failure it is when the first trial fails: the program's, a level's that the audit pins, or the audit's own.

The program is blamed only where it fails with nothing pinned and nothing observed too. Else the probe is tried alone,
then the levels: one that takes from the program what it needs is left as it is from then on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from repro_audit.trial.oracle import Trial, TrialOracle, defect

PATIENCE = 2
"""As much time as others has the trial that clears the program: others may run beside it."""
SLOWER = 20
"""Under the probe no training takes as many times as long as without it."""
LEAST_SECONDS = 30.0
"""Of a trial that is to tell whether a program hangs, at least."""
MOST_LEFT = 3
"""Sources that are left as they are, at most."""


def settle(oracle: TrialOracle, first: Trial) -> Trial:
    """The first trial again, as it must count: one that trains, or that shows the program's own failure.

    Args:
        first: the first trial, which failed.

    Raises:
        InternalError: the program trains by itself, and not under the audit.
    """
    if _may_train_elsewhere(oracle, first):
        launched = oracle.launch()
        if launched is not None:
            return launched
    with _limit(oracle, PATIENCE * oracle.runner.timeout):
        plain = oracle.try_as_is(probed=False)
    if not _trains(plain, first):
        return plain if plain.ended.status == "crashed" else first
    enough = max(LEAST_SECONDS, SLOWER * plain.ended.seconds)
    with _limit(oracle, min(oracle.runner.timeout, enough)):
        probed = oracle.try_as_is(probed=True)
        if not _trains(probed, first):
            _is_ours(probed, plain)
            return _slow(first, plain)
        failing = first
        while len(oracle.left) < MOST_LEFT:
            name, shown = _culprit(oracle, failing)
            oracle.leave(name, _why(shown))
            failing = oracle.begin_again()
            if _trains(failing, first):
                return failing
    raise defect(failing, "with what it pins")


def _may_train_elsewhere(oracle: TrialOracle, first: Trial) -> bool:
    """Whether a script made no step, or said that other processes are to make them."""
    failure = first.facts.failure
    target = oracle.target
    return (
        target.mode == "script"
        and not target.is_notebook
        and not target.launched
        and (first.ended.status == "no-steps" or (failure is not None and failure.elsewhere))
    )


def _trains(trial: Trial, first: Trial) -> bool:
    """Whether it got on where the first trial failed; to end without a step counts only if that had not."""
    return trial.ended.status == "ok" or (
        trial.ended.status == "no-steps" and first.ended.status != "no-steps"
    )


@contextmanager
def _limit(oracle: TrialOracle, seconds: float) -> Iterator[None]:
    """Give trials as much time as that."""
    given = oracle.runner.timeout
    oracle.runner.timeout = seconds
    try:
        yield
    finally:
        oracle.runner.timeout = given


def _is_ours(probed: Trial, plain: Trial) -> None:
    """Say that the probe makes the program fail, unless it may only be slow."""
    ended = probed.ended
    if ended.status != "timeout" or ended.idle or ended.seconds >= SLOWER * plain.ended.seconds:
        raise defect(probed, "under its probe")


def _slow(first: Trial, plain: Trial) -> Trial:
    """The first trial, which might have ended with more time."""
    took = f"{first.ended.exit}; without the audit's probe it takes {plain.ended.seconds:.1f} s"
    return dataclasses.replace(first, ended=dataclasses.replace(first.ended, exit=took))


def _culprit(oracle: TrialOracle, first: Trial) -> tuple[str, Trial]:
    """A source whose pinned level makes the program fail, and the trial that shows it.

    With nothing pinned it trains, with everything it does not: somewhere in between one more level makes the
    difference.
    """
    names = list(oracle.sources)
    fine, failing, shown = 0, len(names), first
    while failing - fine > 1:
        middle = (fine + failing) // 2
        trial = oracle.try_pinned(names[:middle])
        if _trains(trial, first):
            fine = middle
        else:
            failing, shown = middle, trial
    return names[fine], shown


def _why(failing: Trial) -> str:
    failure = failing.facts.failure
    what = failure.what if failure is not None else f"the process {failing.ended.exit}"
    return f"the program fails where it is pinned, so every run has it as it is: {what}"
