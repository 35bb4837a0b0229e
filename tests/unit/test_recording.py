"""What a record that comes from a stranger can not do: have something run, or a variable set, that nobody named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit import recording
from repro_audit.errors import UsageError
from repro_audit.sources import built_in
from repro_audit.storage import record
from repro_audit.storage.fingerprint import Change
from tests.records import make, members, packed

if TYPE_CHECKING:
    from pathlib import Path


def with_target(directory: Path, **fields: Any) -> record.Record:
    whole = make(directory / "run.repro")
    held = members(whole)
    header = {**json.loads(held[record.HEADER]), **fields}
    other = directory / "other.repro"
    other.write_bytes(packed({**held, record.HEADER: json.dumps(header).encode()}))
    return record.read(other, directory / "unpacked")


@pytest.mark.parametrize(
    "fields",
    [
        {"spec": "--", "mode": "command", "argv": ["rm", "-rf", "."]},
        {"spec": "-m", "argv": ["http.server"]},
        {"spec": "/usr/bin/train.py"},
        {"spec": "../train.py"},
        {"spec": "train.py", "argv": ["--delete"]},
        {"spec": "missing.py"},
        {"spec": "shutil:rmtree", "mode": "build"},
    ],
    ids=str,
)
def test_a_target_that_must_be_named(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("import torch\n")
    with pytest.raises(UsageError, match="does not run by itself") as caught:
        recording._own_target(with_target(tmp_path, **fields))
    assert "repro-audit verify" in caught.value.next_step


def test_a_file_of_this_directory_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("import torch\n")
    assert recording._own_target(with_target(tmp_path)).path == "train.py"


@pytest.mark.parametrize(
    ("field", "before"),
    [
        ("variable LD_PRELOAD", "/tmp/evil.so"),  # noqa: S108
        ("variable PYTHONPATH", "/tmp"),  # noqa: S108
        ("variable TZ", "\0"),
        ("variable TZ", "\ud800"),
        ("variable TZ", "x" * 100_000),
        ("threads", "0"),
        ("threads", "1000000"),
        ("threads", "two"),
        ("torch", "2.0"),
        ("CPU capability", "MMX"),
    ],
)
def test_what_is_not_put_back(field: str, before: str) -> None:
    change = Change(field=field, before=before, after=None)
    assert recording._as_it_was(change, built_in()) == ({}, {})


@pytest.mark.parametrize(
    ("field", "before", "setting", "variables"),
    [
        ("variable OMP_NUM_THREADS", "4", {}, {"OMP_NUM_THREADS": "4"}),
        ("variable OMP_NUM_THREADS", None, {}, {"OMP_NUM_THREADS": None}),
        ("threads", "8", {"thread-count": "8"}, {}),
        ("CPU capability", "AVX2", {"cpu-isa": "all capped at AVX2"}, {}),
    ],
)
def test_what_is_put_back(
    field: str, before: str | None, setting: dict[str, str], variables: dict[str, str | None]
) -> None:
    change = Change(field=field, before=before, after="other")
    assert recording._as_it_was(change, built_in()) == (setting, variables)
