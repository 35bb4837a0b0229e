"""The comparison finds what was planted, where it was planted, and nothing else."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro_audit.analysis import compare as compare_module
from repro_audit.analysis.compare import MAX_CONTEXT, Difference, Mismatch, compare
from repro_audit.storage.trace import Phase, Role
from tests.traces import Row, trace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

digests = st.sampled_from([bytes([number]) * 16 for number in range(3)])
any_rows = st.lists(
    st.builds(
        Row,
        step=st.integers(0, 3),
        phase=st.sampled_from(Phase),
        role=st.sampled_from([Role.OUTCOME, Role.OUTCOME, Role.CONTEXT]),
        name=st.sampled_from("abc"),
        meta=st.sampled_from(["float32[2]", "float32[3]", "int64[2]"]),
        digest=digests,
    ),
    max_size=25,
)
training = st.integers(1, 4).flatmap(
    lambda steps: st.integers(1, 6).map(lambda width: a_training(steps, width))
)


def a_training(steps: int, width: int) -> list[Row]:
    """Rows as a training makes them: in each step every phase, in each phase the same names."""
    return [
        Row(
            step=step, phase=phase, name=f"{phase.label}.{number}", digest=b"%16d" % (step + number)
        )
        for step in range(steps)
        for phase in Phase
        for number in range(width)
    ]


def outcomes(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.role is Role.OUTCOME]


def keyed(rows: Sequence[Row]) -> dict[tuple[int, Phase, str, int], Row]:
    """Rows by what aligns them, the plain way."""
    seen: Counter[tuple[int, Phase, str]] = Counter()
    result = {}
    for row in rows:
        place = (row.step, row.phase, row.name)
        result[(*place, seen[place])] = row
        seen[place] += 1
    return result


def difference(a: Sequence[Row], b: Sequence[Row]) -> Difference | None:
    return compare(trace_of(a), trace_of(b))


def found(a: Sequence[Row], b: Sequence[Row]) -> Difference:
    result = difference(a, b)
    assert result is not None
    return result


def mirrored(mismatch: Mismatch) -> Mismatch:
    """The same mismatch with the traces exchanged, apart from its words."""
    return replace(mismatch, detail="", meta_a=mismatch.meta_b, meta_b=mismatch.meta_a)


@given(a=any_rows, b=any_rows)
def test_none_means_equal_outcomes_in_order(a: list[Row], b: list[Row]) -> None:
    equal = outcomes(a) == outcomes(b)
    assert (difference(a, b) is None) == equal
    assert (trace_of(a).outcome_digest() == trace_of(b).outcome_digest()) == equal


@given(a=any_rows)
def test_a_trace_equals_itself(a: list[Row]) -> None:
    assert difference(a, a) is None


@given(a=any_rows, b=any_rows)
def test_exchanging_the_traces_exchanges_the_words_only(a: list[Row], b: list[Row]) -> None:
    forth, back = difference(a, b), difference(b, a)
    if forth is None or back is None:
        assert forth is back
        return
    assert (forth.mismatched, forth.compared) == (back.mismatched, back.compared)
    assert mirrored(forth.first) == replace(back.first, detail="")
    assert ("pinned run" in forth.first.detail) == ("varied run" in back.first.detail) or (
        "where" in forth.first.detail or ";" in forth.first.detail
    )


@given(a=any_rows, b=any_rows)
def test_counts_agree_with_the_plain_way(a: list[Row], b: list[Row]) -> None:
    result = difference(a, b)
    if result is None:
        return
    in_a, in_b = keyed(outcomes(a)), keyed(outcomes(b))
    order_a = [key for key in in_a if key in in_b]
    order_b = [key for key in in_b if key in in_a]
    moved = {key for key in order_a if order_a.index(key) != order_b.index(key)}
    wrong = {key for key in {**in_a, **in_b} if in_a.get(key) != in_b.get(key)} | moved
    assert (result.compared, result.mismatched) == (len({**in_a, **in_b}), len(wrong))
    first = result.first
    assert (first.step, first.phase, first.name, first.occurrence) in wrong


@given(data=st.data(), rows=training)
def test_the_first_of_planted_values_is_found(data: st.DataObject, rows: list[Row]) -> None:
    places = data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1))
    other = [
        replace(row, digest=b"planted         ") if place in places else row
        for place, row in enumerate(rows)
    ]
    result = found(rows, other)
    culprit = rows[min(places)]
    assert (result.first.step, result.first.name) == (culprit.step, culprit.name)
    assert (result.first.kind, result.first.detail) == ("value", "")
    assert result.mismatched == len(places)
    assert result.compared == len(rows)


@given(data=st.data(), rows=training)
def test_an_inserted_or_missing_row_is_one_finding(data: st.DataObject, rows: list[Row]) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    without = [*rows[:at], *rows[at + 1 :]]
    missing, inserted = found(rows, without), found(without, rows)
    for result in (missing, inserted):
        assert (result.first.step, result.first.name) == (rows[at].step, rows[at].name)
        assert (result.first.kind, result.mismatched) == ("structure", 1)
    assert missing.first.detail == "only in the pinned run"
    assert (missing.first.meta_a, missing.first.meta_b) == (rows[at].meta, None)
    assert inserted.first.detail == "only in the varied run"
    assert (inserted.first.meta_a, inserted.first.meta_b) == (None, rows[at].meta)


@given(data=st.data(), rows=training)
def test_reordered_rows_are_a_finding(data: st.DataObject, rows: list[Row]) -> None:
    shuffled = data.draw(st.permutations(rows))
    result = difference(rows, shuffled)
    if shuffled == rows:
        assert result is None
        return
    assert result is not None
    assert result.first.kind == "structure"
    assert "another place" in result.first.detail
    assert result.mismatched == sum(a != b for a, b in zip(rows, shuffled, strict=True))
    at = next(place for place, row in enumerate(rows) if row != shuffled[place])
    assert result.first.name in {rows[at].name, shuffled[at].name}


def test_a_shorter_run_lacks_the_rest() -> None:
    rows = a_training(3, 2)
    result = found(rows, rows[:20])
    assert result.first.detail == "only in the pinned run"
    assert (result.first.step, result.mismatched) == (2, 10)
    assert found([], rows).mismatched == len(rows)


def test_a_value_before_an_inserted_row_comes_first() -> None:
    rows = a_training(2, 2)
    changed = replace(rows[3], digest=b"x" * 16)
    other = [*rows[:3], changed, Row(name="extra"), *rows[4:]]
    result = found(rows, other)
    assert (result.first.name, result.first.kind, result.mismatched) == (rows[3].name, "value", 2)


def test_a_row_in_place_of_another_names_both() -> None:
    a, b = [Row(name="output.0")], [Row(name="output.logits")]
    assert (
        found(a, b).first.detail
        == "only in the pinned run; the varied run has 'output.logits' here"
    )
    assert (
        found(b, a).first.detail
        == "only in the varied run; the pinned run has 'output.logits' here"
    )


def test_occurrences_tell_equal_names_apart() -> None:
    rows = [Row(digest=bytes([number]) * 16) for number in range(4)]
    other = [*rows[:2], replace(rows[2], digest=b"x" * 16), rows[3]]
    assert found(rows, other).first.occurrence == 2


@pytest.mark.parametrize("byte", range(16))
def test_every_byte_of_a_digest_counts(byte: int) -> None:
    other = bytes(int(place == byte) for place in range(16))
    assert found([Row()], [Row(digest=other)]).first.kind == "value"


@pytest.mark.parametrize(
    ("meta_a", "meta_b", "detail"),
    [
        ("float32[4,2]", "float32[4,3]", "shape 4x2 against 4x3"),
        ("float32[]", "float32[1]", "shape scalar against 1"),
        ("float32[4]", "float64[4]", "dtype float32 against float64"),
        ("list[3]", "list[4]", "shape 3 against 4"),
        ("float32[4] cuda:0", "float32[4]", "float32[4] cuda:0 against float32[4]"),
        ("int", "str", "int against str"),
    ],
)
def test_another_form_is_structure(meta_a: str, meta_b: str, detail: str) -> None:
    first = found([Row(meta=meta_a)], [Row(meta=meta_b)]).first
    assert (first.kind, first.detail) == ("structure", detail)
    assert (first.meta_a, first.meta_b) == (meta_a, meta_b)


def rng(step: int, name: str = "rng.torch", digest: bytes = bytes(16)) -> Row:
    return Row(step=step, phase=Phase.DATA, role=Role.CONTEXT, name=name, digest=digest)


def test_context_alone_never_convicts() -> None:
    assert difference([rng(0), Row()], [rng(0, digest=b"x" * 16), Row()]) is None
    assert difference([rng(0), Row()], [Row()]) is None


def test_context_up_to_the_first_mismatch_explains_it() -> None:
    def run(bits: bytes) -> list[Row]:
        steps = [
            [
                rng(step, digest=bits if step >= 2 else bytes(16)),
                rng(step, "rng.numpy"),
                Row(step=step, digest=bits if step >= 3 else bytes(16)),
                rng(step, "rng.python", digest=bits),
            ]
            for step in range(6)
        ]
        return [row for step in steps for row in step]

    result = found(run(b"a" * 16), run(b"b" * 16))
    assert result.first.step == 3
    assert [(each.name, each.step) for each in result.context] == [
        ("rng.python", 0),
        ("rng.torch", 2),
        ("rng.python", 2),
        ("rng.torch", 3),
    ]


def test_context_in_the_same_step_and_phase_counts_though_it_comes_later() -> None:
    def run(bits: bytes) -> list[Row]:
        batch = Row(phase=Phase.DATA, name="batch.0", digest=bits)
        return [
            batch,
            rng(0, "batch.indices", bits),
            replace(rng(0, "later", bits), phase=Phase.BACKWARD),
        ]

    result = found(run(b"a" * 16), run(b"b" * 16))
    assert [each.name for each in result.context] == ["batch.indices"]


def test_context_is_bounded_and_keeps_what_is_nearest() -> None:
    def run(bits: bytes) -> list[Row]:
        return [*(rng(0, f"rng.{number:02}", bits) for number in range(40)), Row(digest=bits)]

    names = [each.name for each in found(run(b"a" * 16), run(b"b" * 16)).context]
    assert names == [f"rng.{number}" for number in range(40 - MAX_CONTEXT, 40)]


def test_context_in_one_trace_only() -> None:
    result = found([Row()], [rng(0), Row(digest=b"x" * 16)])
    assert [(each.name, each.detail) for each in result.context] == [
        ("rng.torch", "only in the varied run")
    ]


def test_blocks_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "ROWS_PER_FLUSH", 3)
    rows = a_training(4, 3)
    for at in range(len(rows)):
        other = [*rows[:at], replace(rows[at], digest=b"x" * 16), *rows[at + 1 :]]
        result = found(rows, other)
        assert (result.first.name, result.first.step) == (rows[at].name, rows[at].step)
        assert result.mismatched == 1


MILLION = """
import sys, tracemalloc
from pathlib import Path
from repro_audit.analysis.compare import compare
from repro_audit.storage.trace import Trace, TraceWriter

def write(directory, change):
    writer = TraceWriter(directory)
    meta = writer.intern("float32[2,3]")
    names = [writer.intern(f"param.layer{number}.weight") for number in range(500)]
    names = names[::-1] if change == "reordered" else names
    for row in range(1_000_000):
        if change == "missing" and row == 5:
            continue
        bits = row + (change == "values")
        writer.add(row // 500, 4, 0, names[row % 500], meta, b"%16d" % bits)
    writer.close()
    return Trace.open(directory)

base = Path(sys.argv[1])
ours, theirs = write(base / "a", "same"), write(base / "b", sys.argv[2])
tracemalloc.start()
result = compare(ours, theirs)
print(tracemalloc.get_traced_memory()[1] // 1_000_000, result.mismatched if result else 0)
"""


@pytest.mark.parametrize(
    ("change", "mismatched"),
    [("same", 0), ("values", 1_000_000), ("missing", 1), ("reordered", 1_000_000)],
)
@pytest.mark.audit
def test_a_million_rows_take_less_than_100_megabytes(
    tmp_path: object, change: str, mismatched: int
) -> None:
    """NumPy reports what it takes to tracemalloc; the mapped traces themselves are not counted."""
    command = [sys.executable, "-c", MILLION, str(tmp_path), change]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    megabytes, count = map(int, ended.stdout.split())
    assert count == mismatched
    assert 5 < megabytes < 100


def test_work_grows_with_the_rows_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in observations that are put into words, and in numbers that are sorted: no clock."""
    sorted_items: list[int] = []
    merge = compare_module.merge

    def counted(a: object, b: object) -> object:
        sorted_items.append(len(a) + len(b))  # type: ignore[arg-type]
        return merge(a, b)  # type: ignore[arg-type]

    monkeypatch.setattr(compare_module, "merge", counted)
    for size in (100, 1000, 10_000):
        rows = a_training(size // 50, 10)
        other = list(rows)
        random.Random(0).shuffle(other)
        sorted_items.clear()
        found(rows, other)
        assert sum(sorted_items) <= 2 * len(rows)
