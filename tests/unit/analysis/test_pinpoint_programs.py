"""The planted cause of random programs is found exactly, whatever else differs beside it."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from repro_audit.analysis.compare import Mismatch
from repro_audit.analysis.pinpoint import Cause, Run, pinpoint
from repro_audit.storage.events import Kind
from repro_audit.storage.trace import Phase
from tests.details import detail_of
from tests.programs import NOISE, Execution, Statement, differing, programs

LOSS = Mismatch(
    step=0,
    phase=Phase.FORWARD,
    name="loss",
    occurrence=0,
    kind="value",
    detail="",
    meta_a="",
    meta_b="",
)


def both(*, noisy: bool, tell_sets: bool) -> tuple[Execution, Execution]:
    return (
        Execution(second=False, noisy=noisy, tell_sets=tell_sets),
        Execution(second=True, noisy=noisy, tell_sets=tell_sets),
    )


def found(a: Execution, b: Execution, line: int) -> Cause:
    """Let both runs make a loss of what differs, and find the cause."""
    names = differing(a, b)
    assume(names)
    for each in (a, b):
        each.finish(line, names)
    cause = pinpoint(Run(main=detail_of(a.rows)), Run(main=detail_of(b.rows, "other")), LOSS)
    assert cause is not None
    return cause


def line_of(cause: Cause) -> int:
    site = cause.place.either.site
    assert site is not None
    return site.line


@given(program=programs, data=st.data(), noisy=st.booleans(), tell_sets=st.booleans())
def test_the_planted_line_is_found(
    program: list[Statement], data: st.DataObject, noisy: bool, tell_sets: bool
) -> None:
    places = [place for place, each in enumerate(program) if each.deed not in NOISE]
    assume(places)
    culprit = data.draw(st.sampled_from(places))
    # Where no line tells what it assigns to, a record of real and noisy values can't be told from a sum.
    assume(tell_sets or not any(each.deed == "log" for each in program))
    a, b = both(noisy=noisy, tell_sets=tell_sets)
    a.run(program, culprit)
    b.run(program, culprit)
    cause = found(a, b, len(program) + 1)
    deed = program[culprit].deed
    line = culprit + 1
    assert line_of(cause) == (1000 + 10 * line + 1 if deed == "call" else line)
    assert cause.place.either.kind is (Kind.LINE if deed == "python" else Kind.OP)
    assert cause.kind == ("line" if deed == "python" else "op")
    assert not cause.incomplete


@given(program=programs, data=st.data(), noisy=st.booleans())
def test_an_op_more_is_found(program: list[Statement], data: st.DataObject, noisy: bool) -> None:
    place = data.draw(st.integers(0, len(program)))
    target = data.draw(st.sampled_from("abcde"))
    a, b = both(noisy=noisy, tell_sets=True)
    for number, statement in enumerate([*program, None]):
        if number == place:
            a.decide(499)
            b.decide(499)
            b.one_more(500, target)
        for each in (a, b):
            if statement is not None:
                each.step(number + 1, statement)
    cause = found(a, b, 501)
    assert (cause.kind, line_of(cause)) == ("order", 500)
    assert cause.other is not None
    assert cause.other.name == "aten::extra_"


@given(program=programs, data=st.data(), noisy=st.booleans())
def test_a_draw_more_is_found(program: list[Statement], data: st.DataObject, noisy: bool) -> None:
    place = data.draw(st.integers(0, len(program)))
    a, b = both(noisy=noisy, tell_sets=True)
    for number, statement in enumerate([*program, None]):
        if number == place:
            b.draw(500)
        for each in (a, b):
            if statement is not None:
                each.step(number + 1, statement)
    cause = found(a, b, 501)
    assert (cause.kind, line_of(cause), cause.generator) == ("draw", 500, "python")


@given(program=programs, noisy=st.booleans())
def test_equal_runs_have_no_cause(program: list[Statement], noisy: bool) -> None:
    a, b = both(noisy=False, tell_sets=noisy)
    a.run(program, -1)
    b.run(program, -1)
    assert pinpoint(Run(main=detail_of(a.rows)), Run(main=detail_of(b.rows, "other")), LOSS) is None
