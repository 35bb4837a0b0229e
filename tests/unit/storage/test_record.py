"""A record comes back as it was saved; what is none, or was changed on its way, is refused with a reason."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro_audit import recording
from repro_audit.analysis.tolerance import Tolerance, parse
from repro_audit.errors import UsageError
from repro_audit.storage import record
from repro_audit.storage.events import DETAIL, MAIN, Detail, Site
from repro_audit.storage.values import open_values
from tests.records import damaged, make, members, packed

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("record") / "run.repro")


def refused(data: bytes, directory: Path) -> UsageError:
    path = directory / "other.repro"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        record.read(path, directory / "unpacked")
    return caught.value


def changed(whole: Path, name: str, data: bytes) -> bytes:
    return packed({**members(whole), name: data})


def with_header(whole: Path, **fields: Any) -> bytes:
    header = json.loads(members(whole)[record.HEADER])
    return changed(whole, record.HEADER, json.dumps({**header, **fields}).encode())


def test_a_record_comes_back_as_it_was_saved(whole: Path, tmp_path: Path) -> None:
    found = record.read(whole, tmp_path / "unpacked")
    assert found.header.losses == (10.0, 1.0)
    assert [row.name for row in found.trace][:2] == ["batch.0", "output"]
    value = open_values(found.directory / record.VALUES)[0, 2, "output", 0]
    assert value.data.view("<f4").tolist() == [1.0, 2.0, 3.0, 4.0]


def test_its_paths_are_relative_to_the_tree(whole: Path, tmp_path: Path) -> None:
    found = record.read(whole, tmp_path / "unpacked")
    detail = Detail.open(found.directory / DETAIL / MAIN)
    sites = {Site.read(detail.strings[number]) for number in detail.site.tolist()}
    assert {site.file for site in sites if site} == {"train.py"}
    assert str(whole.parent).encode() not in b"".join(members(whole).values())


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("none.repro", "pipe", "."):
        with pytest.raises(UsageError, match="record") as caught:
            record.read(tmp_path / name, tmp_path / "unpacked")
        assert caught.value.where == str(tmp_path / name)
        assert "repro-audit record" in caught.value.next_step


def test_a_directory_of_gigabytes_is_not_read(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    at = data.rindex(b"PK\5\6")
    for changed_end in (
        data[: at + 12] + (1 << 31).to_bytes(4, "little") + data[at + 16 :],
        data[:at] + b"PK\6\7" + bytes(16) + data[at:],
    ):
        assert "directory is larger" in refused(changed_end, tmp_path).why


@pytest.mark.parametrize("size", [0, 1, 30, 500, -1])
def test_a_file_that_was_cut_off(whole: Path, tmp_path: Path, size: int) -> None:
    error = refused(whole.read_bytes()[:size], tmp_path)
    assert "no whole record" in error.what
    assert "cut off" in error.why
    assert "repro-audit record" in error.next_step


def test_another_version(whole: Path, tmp_path: Path) -> None:
    assert "update repro-audit" in refused(with_header(whole, version=2), tmp_path).next_step
    assert "make it again" in refused(with_header(whole, version="x"), tmp_path).next_step


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": -1},
        {"steps": 1 << 62},
        {"seed": "0"},
        {"mode": "shell"},
        {"losses": [[]]},
        {"digest": "0" * 32},
        {"fingerprint": [1]},
        {"fingerprint": {str(number): "" for number in range(30_000)}},
        {"files": {"../../etc/passwd": ""}},
        {"files": {"/etc/passwd": ""}},
        {"until_epoch": 10**30},
    ],
    ids=str,
)
def test_a_header_that_means_nothing(whole: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    assert "no whole record" in refused(with_header(whole, **fields), tmp_path).what


@pytest.mark.parametrize(
    "name", ["../outside", "/outside", "trace/../../outside", "trace/more", "detail/x/kind"]
)
def test_members_that_no_record_has(whole: Path, tmp_path: Path, name: str) -> None:
    assert "which no record has" in refused(changed(whole, name, b"x"), tmp_path).why
    assert not (tmp_path / "outside").exists()


def test_a_member_twice(whole: Path, tmp_path: Path) -> None:
    file = io.BytesIO(whole.read_bytes())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr(record.HEADER, b"{}")
    assert "which no record has" in refused(file.getvalue(), tmp_path).why


def test_a_member_that_is_missing(whole: Path, tmp_path: Path) -> None:
    for name in members(whole):
        rest = {each: data for each, data in members(whole).items() if each != name}
        assert "no whole record" in refused(packed(rest), tmp_path).what


def test_columns_of_other_lengths(whole: Path, tmp_path: Path) -> None:
    held = members(whole)["trace/step"]
    assert "different lengths" in refused(changed(whole, "trace/step", held[:-4]), tmp_path).why
    assert "different lengths" in refused(changed(whole, "trace/step", held[:-1]), tmp_path).why


@pytest.mark.parametrize("name", ["trace/step", record.HEADER, "trace/strings.jsonl"])
def test_bombs(whole: Path, tmp_path: Path, name: str) -> None:
    bomb = changed(whole, name, bytes(64 * MEBIBYTE))
    assert len(bomb) < MEBIBYTE
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "no whole record" in refused(bomb, tmp_path).what
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10
    unpacked = sum(each.stat().st_size for each in tmp_path.rglob("*") if each.is_file())
    assert unpacked < MEBIBYTE


def test_a_size_that_is_a_lie(whole: Path, tmp_path: Path) -> None:
    """The directory says that a member is short, and what is packed is long."""
    data = bytearray(changed(whole, "trace/step", bytes(1000)))
    data = bytearray(bytes(data).replace((1000).to_bytes(4, "little"), (32).to_bytes(4, "little")))
    assert "no whole record" in refused(bytes(data), tmp_path).what


def test_a_value_outside_of_the_data(whole: Path, tmp_path: Path) -> None:
    held = members(whole)["values/values.jsonl"]
    lines = held.split(b"\n")
    for fields in ({"start": 1 << 40}, {"shape": [1 << 40]}, {"bytes": 3}, {"shape": [-1]}):
        entry = json.dumps({**json.loads(lines[0]), **fields}).encode()
        error = refused(
            changed(whole, "values/values.jsonl", b"\n".join([entry, *lines[1:]])), tmp_path
        )
        assert "value" in error.why


@pytest.mark.parametrize(
    "site", ['["../x.py", 1, "f", false, 1]', '["x.py", "1", "f", false, 1]', "[]"]
)
def test_a_site_that_is_none(whole: Path, tmp_path: Path, site: str) -> None:
    name = "detail/main/strings.jsonl"
    held = members(whole)[name].split(b"\n")
    at = next(number for number, line in enumerate(held) if b"train.py" in line)
    held[at] = json.dumps(site).encode()
    assert "no whole record" in refused(changed(whole, name, b"\n".join(held)), tmp_path).what


def survives(whole: Path, data: bytes, directory: Path) -> bool:
    """Whether a file can be compared as a record; all that may happen else is that it is refused."""
    path = directory / "damaged.repro"
    path.write_bytes(data)
    try:
        recording.diff(path, whole, tolerance=Tolerance())
        recording.diff(whole, path, tolerance=parse(["rel=1e-3"]))
    except UsageError:
        return False
    return True


def _survive_accidents(whole: Path, directory: Path, count: int, seed: int = 0) -> None:
    chance = random.Random(seed)
    bits, held = whole.read_bytes(), members(whole)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = sum(survives(whole, damaged(bits, held, chance), directory) for _ in range(count))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 << 10, f"{grown} KiB"
    assert 0 < read < count / 2


def test_records_after_accidents(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _survive_accidents(whole, tmp_path, 150)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_records_after_accidents(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)
    _survive_accidents(whole, tmp_path, 1_000, seed + 1)


@given(data=st.binary(max_size=400))
def test_any_bytes_are_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("any")
    assert refused(b"PK" + data, directory).exit_code == UsageError.exit_code
