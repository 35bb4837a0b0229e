"""Traces survive the way to disk and back, and no damage goes unseen."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro_audit.errors import InternalError
from repro_audit.storage.columns import ROWS_PER_FLUSH
from repro_audit.storage.trace import COLUMNS, Phase, Role, Trace, TraceWriter
from tests.traces import Row, trace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

texts = st.text(st.characters(exclude_categories=()), max_size=8)
rows = st.builds(
    Row,
    step=st.integers(0, 2**32 - 1) | st.integers(0, 2),
    phase=st.sampled_from(Phase),
    role=st.sampled_from(Role),
    name=texts | st.sampled_from(("a", "b")),
    meta=texts,
    digest=st.binary(min_size=16, max_size=16),
)


def write(directory: Path, given_rows: Sequence[Row], *, flush_every: int = 1000) -> Trace:
    writer = TraceWriter(directory)
    for count, row in enumerate(given_rows, 1):
        name, meta = writer.intern(row.name), writer.intern(row.meta)
        writer.add(row.step, row.phase, row.role, name, meta, row.digest)
        if count % flush_every == 0:
            writer.flush()
    writer.close()
    return Trace.open(directory)


def test_a_program_may_close_what_is_open(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "trace")
    name = writer.intern("a")
    writer.add(0, Phase.INIT, Role.OUTCOME, name, name, b"0" * 16)
    writer.flush()
    files = list(writer._files.values())
    for file in files:
        os.close(file)
    theirs = [os.open(tmp_path / f"theirs{file}", os.O_RDWR | os.O_CREAT) for file in files[1:]]
    assert set(theirs) & set(files)
    writer.add(1, Phase.INIT, Role.OUTCOME, name, name, b"1" * 16)
    writer.close()
    assert [row.digest[:1] for row in Trace.open(tmp_path / "trace")] == [b"0", b"1"]
    assert [os.fstat(file).st_size for file in theirs] == [0] * len(theirs)
    for file in theirs:
        os.close(file)


@given(given_rows=st.lists(rows, max_size=30), flush_every=st.integers(1, 10))
def test_what_was_written_is_read(given_rows: list[Row], flush_every: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        read = list(write(Path(directory) / "trace", given_rows, flush_every=flush_every))
    assert [(o.step, o.phase, o.role, o.name, o.meta, o.digest) for o in read] == [
        (r.step, r.phase, r.role, r.name, r.meta, r.digest) for r in given_rows
    ]
    seen: dict[object, int] = {}
    for each in read:
        key = (each.step, each.phase, each.role, each.name)
        assert each.occurrence == seen.get(key, 0)
        seen[key] = each.occurrence + 1


@given(given_rows=st.lists(rows, max_size=20))
def test_outcome_digest_ignores_interning_order_and_context(given_rows: list[Row]) -> None:
    context = Row(role=Role.CONTEXT, name="rng", digest=b"x" * 16)
    outcomes = [row for row in given_rows if row.role is Role.OUTCOME]
    padded = [each for row in outcomes for each in (replace(context, name=row.meta), row)]
    assert trace_of(given_rows).outcome_digest() == trace_of(outcomes).outcome_digest()
    assert trace_of(padded).outcome_digest() == trace_of(outcomes).outcome_digest()


@given(data=st.data(), given_rows=st.lists(rows, min_size=1, max_size=20))
def test_outcome_digest_sees_any_change_of_an_outcome(
    data: st.DataObject, given_rows: list[Row]
) -> None:
    given_rows = [replace(row, role=Role.OUTCOME) for row in given_rows]
    at = data.draw(st.integers(0, len(given_rows) - 1))
    other = replace(data.draw(rows), role=Role.OUTCOME)
    changed = [*given_rows[:at], other, *given_rows[at + 1 :]]
    same = trace_of(changed).outcome_digest() == trace_of(given_rows).outcome_digest()
    assert same == (other == given_rows[at])


def test_outcome_digest_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_of([Row(step=step, digest=b"%16d" % step) for step in range(50)])
    whole = trace.outcome_digest()
    monkeypatch.setattr("repro_audit.storage.trace.ROWS_PER_FLUSH", 7)
    assert trace.outcome_digest() == whole


def test_writer_flushes_by_itself(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path)
    name = writer.intern("x")
    for _ in range(ROWS_PER_FLUSH + 1):
        writer.add(0, 0, 0, name, name, bytes(16))
    assert len(Trace.open(tmp_path)) == ROWS_PER_FLUSH
    writer.close()
    writer.close()
    assert len(Trace.open(tmp_path)) == ROWS_PER_FLUSH + 1


def test_clear_drops_rows_and_keeps_ids(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path)
    old = writer.intern("old")
    writer.add(0, 0, 0, old, old, bytes(16))
    writer.flush()
    writer.add(1, 0, 0, old, old, bytes(16))
    writer.clear()
    writer.add(2, 0, 0, writer.intern("old"), writer.intern("new"), bytes(16))
    writer.close()
    (row,) = Trace.open(tmp_path)
    assert (row.step, row.name, row.meta) == (2, "old", "new")


def test_rows_of_one_phase() -> None:
    trace = trace_of([Row(phase=phase, name=phase.label) for phase in Phase])
    assert [row.name for row in trace.rows(phase=Phase.DATA)] == ["data"]
    assert trace.row(-1).name == "optimizer"
    with pytest.raises(IndexError):
        trace.row(len(Phase))


def test_empty_trace(tmp_path: Path) -> None:
    trace = write(tmp_path, [])
    assert (len(trace), list(trace)) == (0, [])
    assert trace.outcome_digest() == trace_of([]).outcome_digest()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("forked", [True, False])
def test_a_forked_copy_never_writes(tmp_path: Path, forked: bool) -> None:
    writer = TraceWriter(tmp_path)
    name = writer.intern("x")
    writer.add(0, 0, 0, name, name, bytes(16))
    pid = os.fork() if forked else 0
    if not pid:
        writer.add(1, 0, 0, writer.intern("child"), name, bytes(16))
        writer.flush()
        if forked:
            writer.clear()
            writer.close()
            os._exit(0)
    else:
        os.waitpid(pid, 0)
    writer.close()
    assert [row.step for row in Trace.open(tmp_path)] == ([0] if forked else [0, 1])


@pytest.mark.parametrize("column", [name for name, _ in COLUMNS])
def test_a_torn_trace_reads_up_to_the_tear(tmp_path: Path, column: str) -> None:
    write(tmp_path, [Row(step=step) for step in range(5)])
    file = tmp_path / column
    file.write_bytes(file.read_bytes()[:-1])
    with (tmp_path / "strings.jsonl").open("a", encoding="ascii") as strings:
        strings.write('"half a te')
    assert [row.step for row in Trace.open(tmp_path)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("phase", b"\x05"),
        ("role", b"\x02"),
        ("name", b"\xff\x00\x00\x00"),
        ("meta", b"\x00\x00\x00\x80"),
        ("strings.jsonl", b"{}\n[]\n"),
        ("strings.jsonl", b"\xff\n"),
        ("step", None),
    ],
)
def test_damage_is_an_error(tmp_path: Path, file: str, content: bytes | None) -> None:
    write(tmp_path, [Row()])
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(InternalError, match="can not be read"):
        Trace.open(tmp_path)
