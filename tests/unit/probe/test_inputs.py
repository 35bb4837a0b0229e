"""What a trial depends on outside of the tree: files that it opens, lists, loads, maps and holds open."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from repro_audit.probe import files, inputs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory with a tree that is watched, files outside of it, and the log."""
    for name in ("tree", "data", "trial"):
        (tmp_path / name).mkdir()
    for name in ("tree/inside.txt", "data/read.bin", "data/held.bin", "data/code.py"):
        (tmp_path / name).write_text("content", encoding="utf-8")
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "linked.bin")
    (tmp_path / "linked.bin").write_bytes(b"content")
    files.install(tmp_path / "tree", tmp_path / "trial" / "files.jsonl")
    yield tmp_path
    files.uninstall()


def test_what_is_opened_and_listed_outside_of_the_tree(place: Path) -> None:
    for _ in range(2):
        (place / "data" / "read.bin").read_bytes()
        (place / "tree" / "inside.txt").read_bytes()
        (place / "tree" / "link").read_bytes()
        (place / "data" / "code.py").read_bytes()
        (place / "data" / "made.bin").write_bytes(b"")
        Path("/proc/self/stat").read_bytes()
        os.listdir(place / "data")  # noqa: PTH208
        list((place / "tree").iterdir())
    files.uninstall()
    lines = (place / "trial" / inputs.LOG).read_text("utf-8").splitlines()
    expected = ("data", "data/read.bin", "linked.bin")
    assert sorted(lines) == [str(place / name) for name in expected]


def test_what_is_loaded_mapped_and_held_open_at_the_end(place: Path) -> None:
    with (place / "data" / "held.bin").open("rb") as held:
        mapped = mmap.mmap(held.fileno(), 0, prot=mmap.PROT_READ)
        other = os.open(place / "data" / "read.bin", os.O_RDONLY)
        inputs.note(place / "trial")
        os.close(other)
        mapped.close()
    found = inputs.read(place / "trial")
    assert {place / "data" / "held.bin", place / "data" / "read.bin"} <= found
    assert Path(torch.__file__) in found
    assert any(path.name.startswith("libtorch") for path in found)
    assert not any(str(path).startswith(("/dev/", "/proc/")) for path in found)


def test_processes_of_a_trial_each_have_a_log(tmp_path: Path) -> None:
    (tmp_path / "processes" / "1").mkdir(parents=True)
    inputs.add(tmp_path, "/one", "relative")
    inputs.add(tmp_path / "processes" / "1", "/two\udcff")
    assert inputs.read(tmp_path) == {Path("/one"), Path("/two\udcff")}
