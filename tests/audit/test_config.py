"""An audit under what `[tool.repro-audit]` chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.auditing import check, write_target

if TYPE_CHECKING:
    from pathlib import Path


def test_an_audit_goes_by_it(tmp_path: Path) -> None:
    program = write_target(
        tmp_path,
        """
        import torch
        from torch import nn

        def build():
            x = torch.full((4, 2), float(torch.get_num_threads()))
            return nn.Linear(2, 1), [(x, torch.ones(4, 1))]
        """,
    )
    (program.parent / "pyproject.toml").write_text(
        "[tool.repro-audit]\nsteps = 3\nonly = ['thread-count']\noutput = ['junit:../out', '../a.md']\n"
        "sources.thread-count.threads = [5, 6]\n",
        encoding="utf-8",
    )
    saved = tmp_path / "report.json"
    audited = check("train.py:build", "--seed", "1", cwd=program.parent, saved=saved)
    settings = audited.report["settings"]
    assert (settings["steps"], settings["seed"]) == (3, 1)
    assert audited.broke == {"thread-count"}
    levels = audited.source("thread-count")["levels"]
    assert [level["level"] for level in levels] == ["5", "6"]
    assert (tmp_path / "out").read_text().startswith("<testsuites ")
    assert "### ✗ thread-count breaks portable" in (tmp_path / "a.md").read_text()
    said = " ".join(audited.terminal.split())
    assert "pyproject.toml sets steps, only, output, thread-count.threads" in said
