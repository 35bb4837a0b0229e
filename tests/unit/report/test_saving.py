"""A saved report is whole, or the older one is still there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from repro_audit.report import saving

CONTENT = "whole \N{CHECK MARK}\n"


def test_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    saving.write(CONTENT, "-")

    assert capsys.readouterr().out == CONTENT


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text("older and longer than nothing")
    path.chmod(0o640)

    saving.write(CONTENT, str(path))

    assert path.read_text() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_new_file_obeys_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        saving.write(CONTENT, str(tmp_path / "report.txt"))
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "report.txt").stat().st_mode) == 0o640


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.txt").symlink_to("real.txt")

    saving.write(CONTENT, str(tmp_path / "link.txt"))

    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == CONTENT


def test_device_is_written_to_and_not_replaced() -> None:
    saving.write(CONTENT, os.devnull)

    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_failed_write_leaves_the_older_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.txt"
    path.write_text("older")

    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)

    with pytest.raises(KeyboardInterrupt):
        saving.write(CONTENT, str(path))
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]
