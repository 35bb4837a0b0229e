"""What was in the files that a program opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import xxhash

from repro_audit.probe import files
from repro_audit.probe.clock import Clock
from repro_audit.probe.detail import contents
from repro_audit.probe.detail.contents import Contents
from repro_audit.probe.detail.sites import Sites
from repro_audit.storage.events import NOTHING, DetailWriter, Kind
from tests.detailing import Seen, line_of, load

if TYPE_CHECKING:
    from pathlib import Path


def opened(directory: Path, source: str) -> list[tuple[str, str, int, bytes]]:
    """Import a program in a tree with a file in it: what it opened, how, on which line, with which content."""
    tree = directory / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "data.txt").write_text("data")
    writer = DetailWriter(directory / "trial" / "detail" / "main")
    sites = Sites(writer.intern)
    rows = Contents(writer=writer, sites=sites, clock=Clock(), ours=directory / "trial")
    files.install(tree, directory / "trial" / "files.jsonl")
    files.detail(rows.opened)
    try:
        load(tree, f"TREE = {str(tree)!r}\n{source}")
    finally:
        files.detail(None)
        files.uninstall()
        writer.close()
    seen = Seen(directory / "trial" / "detail" / "main").of(Kind.FILE)
    assert all(event.before == NOTHING for event in seen)
    return [
        (event.name, event.meta, line_of(event), event.after)
        for event in seen
        if event.site and event.site.file.endswith("program.py")
    ]


DATA = xxhash.xxh3_128_digest(b"data")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("open(TREE + '/data.txt').read()", [("data.txt", "r", 2, DATA)]),
        (
            "for _ in range(2):\n    open(TREE + '/data.txt').close()",
            [("data.txt", "r", 3, DATA)] * 2,
        ),
        ("open(TREE + '/new.txt', 'w').close()", [("new.txt", "w", 2, NOTHING)]),
        ("open(TREE + '/data.txt', 'w').close()", [("data.txt", "w", 2, DATA)]),
        ("import json", []),
        ("import tempfile\ntempfile.TemporaryFile().close()", []),
        ("open('/dev/null').close()", []),
        (
            "import numpy as np\nnp.loadtxt(TREE + '/data.txt', dtype=str)",
            [("data.txt", "r", 3, DATA)],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_was_opened(
    tmp_path: Path, source: str, expected: list[tuple[str, str, int, bytes]]
) -> None:
    assert opened(tmp_path, source) == expected


def test_data_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_text("data")
    assert opened(tmp_path, f"open({str(elsewhere)!r}).close()") == [(str(elsewhere), "r", 2, DATA)]


def test_the_audits_own_files_are_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    ours = tmp_path / "trial" / "request.json"
    ours.write_text("{}")
    assert opened(tmp_path, f"open({str(ours)!r}).close()") == []


def test_a_large_file_counts_by_its_ends_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "WHOLE_BYTES", 10)
    monkeypatch.setattr(contents, "_END_BYTES", 4)
    large = tmp_path / "large"
    digests = []
    for data in ("aaaa----bbbb", "aaaa-XX-bbbb", "aaaa----bbbX", "aaaa-----bbbb"):
        large.write_text(data)
        digests.append(opened(tmp_path, f"open({str(large)!r}).close()")[0][3])
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
