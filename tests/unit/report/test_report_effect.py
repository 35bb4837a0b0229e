"""The order of findings: by promise, then by the size of the effect."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from repro_audit.report import effect
from repro_audit.report.model import (
    Divergence,
    DivergenceKind,
    LossCurve,
    Size,
    SourceResult,
    SourceStatus,
)
from repro_audit.source import Scope
from tests.report_models import source


def curve(*values: float) -> LossCurve:
    return LossCurve(label="", values=values)


def broke(
    id: str,  # noqa: A002  # the field's name
    scope: Scope = Scope.RERUN,
    *,
    losses: tuple[float, ...] = (),
    max_abs: float | None = None,
) -> SourceResult:
    """A finding whose losses differ from 1.0, and its first tensor by `max_abs`."""
    size = None if max_abs is None else Size(max_abs=max_abs, max_ulp=None, mismatched=1, numel=1)
    return replace(
        source(id, scope, SourceStatus.BROKE),
        losses=(curve(*(1.0 for _ in losses)), curve(*losses)) if losses else None,
        divergence=Divergence(
            step=0, phase="forward", kind=DivergenceKind.VALUE, name="loss", size=size
        ),
    )


def test_the_narrowest_promise_is_first_and_the_yardstick_last() -> None:
    found = [
        broke(scope.value, scope)
        for scope in (Scope.NONE, Scope.PORTABLE, Scope.SETTINGS, Scope.RERUN)
    ]
    assert [each.id for each in effect.findings(found)] == [
        "rerun",
        "settings",
        "portable",
        "none",
    ]


def test_what_takes_several_counts_for_the_widest_of_them() -> None:
    both = replace(broke("both", losses=(9.0,)), together=("wide",))
    found = (both, source("wide", Scope.PORTABLE), broke("settings", Scope.SETTINGS))
    assert [each.id for each in effect.findings(found)] == ["settings", "both"]


@pytest.mark.parametrize(
    "larger",
    [
        broke("larger", losses=(1.0, 1.2, 1.0)),
        broke("larger", losses=(0.5,)),
        broke("larger", losses=(math.nan,)),
        broke("larger", losses=(math.inf, 1.0)),
    ],
)
def test_of_one_promise_the_largest_difference_of_a_loss_is_first(larger: SourceResult) -> None:
    smaller = broke("smaller", losses=(1.1, 1.1, 1.1), max_abs=1e9)
    for found in ((smaller, larger), (larger, smaller)):
        assert [each.id for each in effect.findings(found)] == ["larger", "smaller"]


def test_where_no_loss_differs_the_first_tensor_counts() -> None:
    small, large, loss = (
        broke("small", losses=(1.0,), max_abs=1e-3),
        broke("large", max_abs=math.nan),
        broke("loss", losses=(1.0 + 1e-9,), max_abs=1e-9),
    )
    found = effect.findings((broke("none"), small, large, source("held"), loss))
    assert [each.id for each in found] == ["loss", "large", "small", "none"]


def test_gaps_end_with_the_shorter_run() -> None:
    assert effect.gaps(curve(1.0, 2.0, 3.0), curve(1.0, 2.5)) == [0.0, 0.5]
    assert math.isnan(effect.gaps(curve(1.0), curve(math.nan))[0])
    assert effect.gaps(curve(math.nan), curve(math.nan)) == [0.0]
