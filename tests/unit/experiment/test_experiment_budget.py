"""An experiment whose time is over: what was seen by then is told, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro_audit.experiment import PARTED, UNREPEATED, Outcome, Run, experiment
from tests.planted import Program, audit, baseless, factor, levels_of, many_factors, wrongly_blamed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repro_audit.experiment import Factor


@dataclass(kw_only=True)
class Limited(Program):
    """A program for which there is time to run so many times."""

    limit: int

    def run(self, runs: Sequence[Run]) -> list[Outcome]:
        """Answer what there is time for."""
        left = max(self.limit - len(self.trials), 0)
        untested = Outcome(trial="", status="untested", digest=None)
        return [*map(self._trial, runs[:left]), *[untested] * len(runs[left:])]


@given(data=st.data(), factors=many_factors(), limit=st.integers(1, 60), fresh=st.booleans())
def test_whenever_time_is_over_nobody_is_blamed_or_cleared_wrongly(
    data: st.DataObject, factors: list[Factor], limit: int, *, fresh: bool
) -> None:
    guilty = frozenset(
        data.draw(st.lists(st.sampled_from(levels_of(factors)), max_size=3, unique=True))
        if levels_of(factors)
        else []
    )
    program = Limited(culprits=guilty, limit=limit)
    result = audit(program, factors, fresh=fresh)
    whole = audit(Program(culprits=guilty), factors, fresh=fresh)
    names = {name for name, _ in guilty}
    assert not wrongly_blamed(result, names)
    assert not baseless(program, result)
    cleared = {name for name, each in result.judgements.items() if each.status == "held"}
    assert not cleared & names
    assert result.unexplained is None
    if not result.spent:
        assert result == whole


@given(
    factors=many_factors(),
    limit=st.integers(1, 60),
    every=st.integers(1, 4),
    phase=st.integers(0, 3),
)
def test_noise_is_blamed_on_nobody_when_time_is_over(
    factors: list[Factor], limit: int, every: int, phase: int
) -> None:
    program = Limited(limit=limit, noisy=lambda number: number % every == phase % every)
    result = audit(program, factors)
    if result.spent:
        assert not wrongly_blamed(result, set())


@given(factors=many_factors(), limit=st.integers(1, 60))
def test_what_forking_does_is_blamed_on_nobody(factors: list[Factor], limit: int) -> None:
    result = audit(Limited(limit=limit, unfaithful=True), factors)
    assert not wrongly_blamed(result, set())
    assert not (result.spent and result.unexplained)


def limited(limit: int) -> Limited:
    """One that the second of three factors breaks."""
    return Limited(limit=limit, culprits=frozenset({("f1", "v0")}))


@pytest.mark.parametrize(
    ("limit", "status", "note"),
    [
        (1, "untested", None),
        (3, "untested", PARTED),
        (7, "untested", UNREPEATED),
        (40, "broke", None),
    ],
)
def test_a_culprit_is_named_once_there_was_time_to_make_sure(
    limit: int, status: str, note: str | None
) -> None:
    factors = [
        factor("f0", interpreters=("v0",)),
        factor("f1"),
        factor("f2"),
        factor("f3", scope="portable"),
    ]
    program = limited(limit)
    result = experiment(factors, program.floor(), program)
    judgement = result.judgements["f1"]
    assert (judgement.status, judgement.note, result.spent) == (status, note, limit < 40)


def test_three_trials_tell_of_a_rerun_before_anything_else_is_tried() -> None:
    factors = [
        factor("f0", "v0", "v1", interpreters=("v0", "v1")),
        factor("f1", race=True),
        factor("f2", scope="settings"),
        factor("f3", scope="portable", alone=True),
    ]
    program = Limited(limit=3)
    result = experiment(factors, program.floor(), program)
    assert {name: each.status for name, each in result.judgements.items()} == {
        **dict.fromkeys(("f0", "f1"), "held"),
        **dict.fromkeys(("f2", "f3"), "untested"),
    }
