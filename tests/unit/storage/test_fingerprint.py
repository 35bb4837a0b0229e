"""What two runs do not share is named, the likeliest cause of other numbers first."""

from __future__ import annotations

from repro_audit.storage.fingerprint import VARIABLES, Change, changes

BEFORE = {
    "Python": "3.11.9",
    "torch": "2.11.0",
    "threads": "2",
    "code train.py": "aa",
    "file data.npy": "bb",
    "package numpy": "2.0",
    "git commit": "abc",
}
AFTER = {
    **BEFORE,
    "torch": "2.13.0",
    "threads": "4",
    "code train.py": "ab",
    "file data.npy": "bc",
    "package numpy": "2.1",
    "variable OMP_NUM_THREADS": "4",
}


def fields(found: list[Change]) -> list[str]:
    return [change.field for change in found]


def test_equal_fields_are_no_changes() -> None:
    assert changes(BEFORE, BEFORE) == []


def test_the_program_comes_first_and_where_an_op_differs_its_kernels() -> None:
    program = ["code train.py", "file data.npy"]
    kernels = ["variable OMP_NUM_THREADS", "threads", "torch"]
    assert fields(changes(BEFORE, AFTER)) == [*program, *kernels, "package numpy"]
    assert fields(changes(BEFORE, AFTER, op=True)) == [*kernels, *program, "package numpy"]


def test_what_the_difference_is_in_comes_before_all() -> None:
    found = changes(BEFORE, AFTER, op=True, files={"data.npy"})
    assert fields(found)[0] == "file data.npy"


def test_in_words() -> None:
    found = changes(BEFORE, AFTER)
    said = {change.field: change.in_words("the record", "this run") for change in found}
    assert said["threads"] == "threads: 2 → 4"
    assert said["variable OMP_NUM_THREADS"] == "variable OMP_NUM_THREADS: none → 4"
    assert said["file data.npy"] == "file data.npy: other content"
    gone = Change(field="file x.npy", before="aa", after=None)
    assert gone.in_words("the record", "this run") == "file x.npy: read by the record alone"


def test_no_variable_that_loads_code_or_holds_a_secret_is_kept() -> None:
    for name in VARIABLES:
        assert not any(
            part in name for part in ("PATH", "PRELOAD", "TOKEN", "KEY", "SECRET", "LIB")
        )
