"""The verdict: `decide`, by table and by property."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro_audit.report.model import (
    PROMISES,
    Confidence,
    Outcome,
    PromiseStatus,
    SourceResult,
    SourceStatus,
    decide,
    required_promises,
)
from repro_audit.source import Scope
from tests.report_models import CLEAN, REPORTS, source

RERUN, SETTINGS, PORTABLE, NONE = Scope.RERUN, Scope.SETTINGS, Scope.PORTABLE, Scope.NONE
BROKE, HELD, DELEGATED = SourceStatus.BROKE, SourceStatus.HELD, SourceStatus.DELEGATED
SKIPPED, ERROR = SourceStatus.NOT_EXERCISED, SourceStatus.ERROR

scopes = st.sampled_from(list(Scope))
promises = st.sampled_from(PROMISES)
results = st.builds(
    lambda scope, status: source("a-source", scope, status),
    scopes,
    st.sampled_from(list(SourceStatus)),
)
catalogues = st.lists(results, max_size=6)


@pytest.mark.parametrize(
    ("pairs", "require", "verdict", "promised"),
    [
        ([], RERUN, "reproducible", "held unknown unknown"),
        ([], PORTABLE, "reproducible", "held unknown unknown"),
        ([(RERUN, HELD)], RERUN, "reproducible", "held unknown unknown"),
        ([(RERUN, SKIPPED)], RERUN, "reproducible", "held unknown unknown"),
        ([(RERUN, BROKE)], RERUN, "not-reproducible", "broke unknown unknown"),
        ([(RERUN, BROKE), (RERUN, ERROR)], RERUN, "not-reproducible", "broke unknown unknown"),
        ([(RERUN, BROKE)], PORTABLE, "not-reproducible", "broke unknown unknown"),
        ([(SETTINGS, BROKE)], RERUN, "reproducible", "held broke unknown"),
        ([(SETTINGS, BROKE)], SETTINGS, "not-reproducible", "held broke unknown"),
        ([(PORTABLE, BROKE)], SETTINGS, "reproducible", "held unknown broke"),
        ([(SETTINGS, DELEGATED)], SETTINGS, "reproducible", "held held unknown"),
        ([(SETTINGS, SKIPPED)], SETTINGS, "reproducible", "held unknown unknown"),
        ([(SETTINGS, HELD), (SETTINGS, SKIPPED)], SETTINGS, "reproducible", "held held unknown"),
        ([(SETTINGS, HELD), (SETTINGS, ERROR)], SETTINGS, "inconclusive", "held unknown unknown"),
        ([(SETTINGS, ERROR)], RERUN, "reproducible", "held unknown unknown"),
        ([(RERUN, ERROR)], RERUN, "inconclusive", "unknown unknown unknown"),
        (
            [(RERUN, ERROR), (SETTINGS, BROKE)],
            SETTINGS,
            "not-reproducible",
            "unknown broke unknown",
        ),
        ([(NONE, BROKE), (NONE, ERROR)], PORTABLE, "reproducible", "held unknown unknown"),
    ],
)
def test_verdict(
    pairs: list[tuple[Scope, SourceStatus]], require: Scope, verdict: str, promised: str
) -> None:
    decision = decide([source("a-source", *pair) for pair in pairs], require=require)

    assert decision.verdict.value == verdict
    assert " ".join(status.value for status in decision.scopes.values()) == promised


def test_unexplained_difference_breaks_rerun() -> None:
    decision = decide([source("a-source")], require=RERUN, unexplained=True)

    assert decision.exit_code == 1
    assert decision.scopes[RERUN] is PromiseStatus.BROKE


def test_noise_floor_not_reached_is_inconclusive() -> None:
    decision = decide([source("a-source")], require=RERUN, inconclusive=True)

    assert decision.exit_code == 4
    assert decision.scopes[RERUN] is PromiseStatus.UNKNOWN


@given(catalogues, promises)
def test_nothing_at_stake_is_never_a_verdict(sources: list[SourceResult], require: Scope) -> None:
    decision = decide(sources, require=require, at_stake=False)
    usual = decide(sources, require=require)

    assert decision.exit_code == 4
    for scope, status in decision.scopes.items():
        broke = usual.scopes[scope] is PromiseStatus.BROKE
        assert status is (PromiseStatus.BROKE if broke else PromiseStatus.UNKNOWN)


@given(
    sources=catalogues,
    require=promises,
    unexplained=st.booleans(),
    inconclusive=st.booleans(),
)
def test_failed_target_is_never_judged(
    *, sources: list[SourceResult], require: Scope, unexplained: bool, inconclusive: bool
) -> None:
    decision = decide(
        sources, require=require, unexplained=unexplained, inconclusive=inconclusive, failed=True
    )

    assert decision.exit_code == 3
    assert set(decision.scopes.values()) == {PromiseStatus.UNKNOWN}


@given(catalogues, promises)
def test_requiring_more_never_mends(sources: list[SourceResult], require: Scope) -> None:
    severity = [Outcome.REPRODUCIBLE, Outcome.INCONCLUSIVE, Outcome.NOT_REPRODUCIBLE]
    verdicts = [decide(sources, require=scope).verdict for scope in required_promises(require)]

    assert verdicts == sorted(verdicts, key=severity.index)


@given(catalogues, results, promises)
def test_a_conviction_only_touches_its_own_promise(
    sources: list[SourceResult], other: SourceResult, require: Scope
) -> None:
    before = decide(sources, require=require)
    after = decide([*sources, replace(other, status=BROKE)], require=require)

    for scope in PROMISES:
        expected = PromiseStatus.BROKE if scope is other.scope else before.scopes[scope]
        assert after.scopes[scope] is expected
    if other.scope in required_promises(require):
        assert after.verdict is Outcome.NOT_REPRODUCIBLE
    else:
        assert after.verdict is before.verdict


@given(catalogues, promises)
def test_order_and_confidence_do_not_matter(sources: list[SourceResult], require: Scope) -> None:
    turned = [replace(s, confidence=Confidence.SUSPECTED) for s in reversed(sources)]

    assert decide(turned, require=require) == decide(sources, require=require)


def test_exit_codes() -> None:
    assert {name: report.exit_code for name, report in REPORTS.items()} == {
        "broken": 1,
        "clean": 0,
        "only-settings": 0,
        "unexplained": 1,
        "inconclusive": 4,
        "not-trained": 4,
        "failed": 3,
        "hostile": 1,
        "hostile-failure": 3,
    }
    assert CLEAN.verdict is Outcome.REPRODUCIBLE


def test_a_conjunction_breaks_the_widest_promise_of_its_members() -> None:
    """The same command, again, has the same number of workers."""
    hashes = replace(source("hash-seed", RERUN, BROKE), together=("num-workers",))
    workers = replace(source("num-workers", SETTINGS, BROKE), together=("hash-seed",))
    decision = decide([hashes, workers], require=RERUN)
    assert decision.verdict is Outcome.REPRODUCIBLE
    assert [status.value for status in decision.scopes.values()] == ["held", "broke", "unknown"]
