"""The verdict and the promises in words, the same in every format for people."""

from __future__ import annotations

from collections.abc import Iterable

from repro_audit.report import text
from repro_audit.report.model import (
    PROMISES,
    Comparison,
    Outcome,
    PromiseStatus,
    Report,
    SourceStatus,
    broken_promise,
    required_promises,
)
from repro_audit.source import Scope

_MEANINGS = {
    Scope.RERUN: "the same command again",
    Scope.SETTINGS: "other settings, same machine",
    Scope.PORTABLE: "another machine",
}
WRITES = {
    "overlay": "writes kept off the tree",
    "copy": "in a copy of the tree",
    "shared": "writes go to the tree",
}
"""What became of the writes of trials, by how they were isolated."""


def meaning(report: Report, scope: Scope) -> str:
    """What a promise is about; of a cluster of several kinds of machine, no other one had to be emulated."""
    emulated = scope is Scope.PORTABLE and len(report.environment.machines) <= 1
    return f"{_MEANINGS[scope]} (emulated)" if emulated else _MEANINGS[scope]


def said(report: Report) -> str:
    """The verdict, and what it covers: `NOT REPRODUCIBLE on rerun, settings`."""
    decision = report.decision
    by_status = {
        status: [scope for scope in PROMISES if decision.scopes[scope] is status]
        for status in PromiseStatus
    }
    required = required_promises(report.require)
    if decision.verdict is Outcome.TARGET_FAILED:
        return "TARGET FAILED, so nothing was audited"
    if decision.verdict is Outcome.INCONCLUSIVE:
        compared = report.comparison is not None
        why = "there is nothing to compare" if compared else "not every trial could be judged"
        return f"INCONCLUSIVE: {why if report.nothing_at_stake is None else 'nothing was at stake'}"
    if report.comparison is not None:
        return _compared(report.comparison, equal=decision.verdict is Outcome.REPRODUCIBLE)
    if decision.verdict is Outcome.NOT_REPRODUCIBLE:
        broke = [scope for scope in by_status[PromiseStatus.BROKE] if scope in required]
        return f"NOT REPRODUCIBLE on {_scopes(broke)}"
    held = by_status[PromiseStatus.HELD]
    tried = report.tried(*held)
    reproducible = f"REPRODUCIBLE on {_scopes(held)} as far as tried: {tried.tried} of {tried.of}"
    if report.accepted:
        reproducible += f", but for what is accepted: {text.listed(s.id for s in report.accepted)}"
    if by_status[PromiseStatus.BROKE]:
        return f"{reproducible}; not on {_scopes(by_status[PromiseStatus.BROKE])}"
    untested = [scope for scope in by_status[PromiseStatus.UNKNOWN] if scope in required]
    return f"{reproducible}; {_scopes(untested)} untested" if untested else reproducible


def _compared(comparison: Comparison, *, equal: bool) -> str:
    reference, other = text.line(comparison.reference), text.line(comparison.other)
    if not equal:
        return f"DIFFERENT: {other} does not equal {reference}"
    within = text.line(comparison.within)
    return f"EQUAL: {other} equals {reference} {f'within {within}' if within else 'bit for bit'}"


def exit_in_words(report: Report) -> str:
    """The exit code of the command, and the promise that it is about."""
    no_promise = report.failure is not None or report.comparison is not None
    required = "" if no_promise else f"; {report.require.value} required"
    return f"exit {report.exit_code}{required}"


def ran(report: Report) -> str:
    """What the audit took: `8 steps a trial, 53 trials in 26.5 s`."""
    steps = text.plural(report.settings.steps, "step")
    trials = text.plural(len(report.trials), "trial")
    return f"{steps} a trial, {trials} in {text.seconds(report.seconds)}"


def condition(report: Report) -> str:
    """What the verdict hangs on; empty where it does on nothing."""
    if not report.conditions or report.verdict is not Outcome.REPRODUCIBLE:
        return ""
    return f"the caller seeds {' and '.join(report.conditions)}"


def because(report: Report, scope: Scope) -> str:
    """Why a promise has its status."""
    sources = [
        source for source in report.sources if broken_promise(source, report.sources) is scope
    ]
    by_status = {
        status: [each.id for each in sources if each.status is status and not each.accepted]
        for status in SourceStatus
    }
    if report.decision.scopes[scope] is PromiseStatus.BROKE:
        unexplained = scope is Scope.RERUN and report.unexplained is not None
        no_source = ["a cause that no source accounts for"] if unexplained else []
        return text.listed([*by_status[SourceStatus.BROKE], *no_source])
    if scope is Scope.RERUN and report.inconclusive is not None:
        return report.inconclusive
    if report.nothing_at_stake is not None:
        return "nothing was at stake"
    untried = [*by_status[SourceStatus.ERROR], *(each.id for each in sources if each.unfinished)]
    if untried:
        return "not all could be tried: " + text.listed(untried)
    accepted = [source.id for source in sources if source.accepted]
    but_for = f", but for {text.listed(accepted)}, which is accepted" if accepted else ""
    held, delegated = len(by_status[SourceStatus.HELD]), len(by_status[SourceStatus.DELEGATED])
    if not held + delegated:
        left_out = all(source.left_out for source in sources)
        nothing = "nothing of it was tried" if left_out else "nothing of it could be tried"
        return ("only repeated as it is" if scope is Scope.RERUN else nothing) + but_for
    left_to_us = f", {delegated} delegated" if delegated else ""
    return f"{held} of {text.plural(len(sources), 'source')} same{left_to_us}{but_for}"


def _scopes(scopes: Iterable[Scope]) -> str:
    return text.listed(scope.value for scope in scopes)
