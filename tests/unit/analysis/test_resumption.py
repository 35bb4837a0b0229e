"""Two halves of a training as one trace, and what the second one lost, on traces made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from repro_audit.analysis.resumption import join, lost
from repro_audit.storage.trace import PUT_BACK, SETTING, Phase, Role, Trace
from tests.traces import Row, trace_of

if TYPE_CHECKING:
    from collections.abc import Iterable

STEPS = 2


def row(step: int, phase: Phase, name: str, value: int = 0, *, role: Role = Role.OUTCOME) -> Row:
    return Row(step, phase, role, name, "form", bytes([value]) * 16)


def context(step: int, phase: Phase, name: str, value: int = 0, meta: str = "form") -> Row:
    return Row(step, phase, Role.CONTEXT, name, meta, bytes([value]) * 16)


def batch(step: int, value: int = 0, loader: str = "") -> list[Row]:
    return [
        context(step, Phase.DATA, f"{loader}batch.indices", value),
        context(step, Phase.DATA, "rng.torch", value),
        row(step, Phase.DATA, f"{loader}batch.0", value),
        row(step, Phase.DATA, f"{loader}batch.1", value),
    ]


def evaluated(step: int, value: int = 50) -> list[Row]:
    return [row(step, Phase.FORWARD, "output", value)]


def begun(step: int = 0, value: int = 0) -> list[Row]:
    """As a process observes a model that it has made."""
    return [
        row(step, Phase.INIT, "param.w", value),
        row(step, Phase.INIT, "buffer.b", value),
        context(step, Phase.INIT, "rng.torch", value),
    ]


def trained(step: int, value: int = 0) -> list[Row]:
    """A step: its forward, its backward, its update."""
    return [
        row(step, Phase.FORWARD, "output", value),
        row(step, Phase.FORWARD, "loss", value),
        context(step, Phase.OPTIMIZER, f"{SETTING}SGD.lr", meta=f"{1 / (1 + step)}"),
        row(step, Phase.BACKWARD, "grad.w", value),
        row(step, Phase.OPTIMIZER, "param.w", value + step),
        row(step, Phase.OPTIMIZER, "state.w.momentum", value + step),
        row(step, Phase.OPTIMIZER, "buffer.b", value + step),
    ]


def straight(between: Iterable[Row] = (), *, loader: str = "") -> Trace:
    """Four steps in one process, with something between the checkpoint and the step after it."""
    first = [*begun(), *(each for step in range(STEPS) for each in (*batch(step), *trained(step)))]
    late = [each for step in (2, 3) for each in (*batch(step, loader=loader), *trained(step))]
    return trace_of([*first, *between, *late])


def first_half() -> Trace:
    return trace_of(
        [
            *begun(),
            *(each for step in range(STEPS) for each in (*batch(step), *trained(step))),
            *batch(STEPS),  # what it had begun when it was ended
        ]
    )


def second_half(before: Iterable[Row] = (), *, loader: str = "", value: int = 0) -> Trace:
    head, *rest = batch(STEPS, value, loader), trained(STEPS, value)
    return trace_of(
        [
            *before,
            *head,
            *begun(STEPS, 1),
            *(each for part in rest for each in part),
            *batch(3, value, loader),
            *trained(3, value),
        ]
    )


BETWEEN = {
    "nothing": [],
    "an evaluation": [*evaluated(STEPS), *evaluated(STEPS)],
    "an evaluation of batches": [*batch(STEPS, 40), *evaluated(STEPS)],
}
BEFORE = {
    "nothing": [],
    "batches that are read over": [*batch(STEPS, 30), *batch(STEPS, 31)],
    "an evaluation": [*batch(STEPS, 40), *evaluated(STEPS)],
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("between", BETWEEN)
def test_halves_that_make_the_whole(between: str, before: str) -> None:
    whole = straight(BETWEEN[between])
    joined = join(whole, first_half(), second_half(BEFORE[before]), steps=STEPS)
    assert rejoined(joined.rows).outcome_digest() == whole.outcome_digest()
    assert joined.left_out is (before != "nothing") or between != "nothing"


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("between", BETWEEN)
def test_halves_that_do_not(between: str, before: str) -> None:
    whole = straight(BETWEEN[between])
    joined = join(whole, first_half(), second_half(BEFORE[before], value=9), steps=STEPS)
    found = lost(whole, rejoined(joined.rows))
    assert (found["phase"], found["other_samples"]) == ("data", True)
    assert found["generators"] == ["rng.torch"]


def test_loaders_are_numbered_as_the_straight_run_has_them() -> None:
    whole = straight(loader="loader4.")
    joined = join(whole, first_half(), second_half(), steps=STEPS)
    assert rejoined(joined.rows).outcome_digest() == whole.outcome_digest()


def test_a_step_that_does_something_else_is_no_match() -> None:
    whole = straight()
    other = [*batch(STEPS), *trained(STEPS)]
    del other[-3]  # a parameter that is not observed
    joined = join(whole, first_half(), trace_of([*other, *batch(3), *trained(3)]), steps=STEPS)
    assert rejoined(joined.rows).outcome_digest() != whole.outcome_digest()


def put_back(name: str, value: int) -> Row:
    return context(STEPS, Phase.OPTIMIZER, PUT_BACK + name, value)


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([put_back("param.w", 1), put_back("state.w.momentum", 1)], []),
        ([put_back("param.w", 7), put_back("state.w.momentum", 1)], [["param.w", "parameter"]]),
        (
            [put_back("param.w", 1), put_back("state.w.momentum", 7)],
            [["state.w.momentum", "state"]],
        ),
        ([put_back("param.w", 1)], [["state.w.momentum", "state"]]),
        # A list is only known to be there.
        ([put_back("param.w", 1), put_back("state.w", 0)], []),
    ],
)
def test_what_was_not_put_back(rows: list[Row], found: list[list[str]]) -> None:
    second = trace_of([*batch(STEPS), *rows, *trained(STEPS, 8), *batch(3), *trained(3)])
    whole = straight()
    joined = join(whole, first_half(), second, steps=STEPS)
    assert lost(whole, rejoined(joined.rows))["lost"] == found


def test_a_buffer_that_was_not_put_back_and_another_rate() -> None:
    second = [*second_half_rows()]
    rate = next(number for number, each in enumerate(second) if each.name.startswith(SETTING))
    second[rate] = context(STEPS, Phase.OPTIMIZER, f"{SETTING}SGD.lr", meta="0.5")
    whole = straight()
    joined = join(whole, first_half(), trace_of(second), steps=STEPS)
    assert lost(whole, rejoined(joined.rows))["lost"] == [
        ["buffer.b", "buffer"],
        [f"SGD.lr: 0.5 instead of {1 / 3} in step 2", "setting"],
    ]


def second_half_rows() -> list[Row]:
    return [*batch(STEPS), *begun(STEPS, 7), *trained(STEPS, 8), *batch(3), *trained(3)]


def rejoined(rows: Iterable[object]) -> Trace:
    return trace_of(rows)  # type: ignore[arg-type]  # what a row has, an observation has too
