"""`init`: what a project gets, and that nothing of it is lost."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from repro_audit import config
from repro_audit.cli.init_files import additions, offer
from repro_audit.errors import UsageError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    directory = tmp_path / "my models"
    directory.mkdir()
    (directory / "train.py").write_text("import torch\n")
    monkeypatch.chdir(directory)
    return directory


def workflow(project: Path) -> Any:
    text = (project.parent / ".github" / "workflows" / "reproducibility.yml").read_text()
    return yaml.safe_load(text)["jobs"]["repro-audit"]


def test_a_project_gets_a_table_and_a_workflow(project: Path) -> None:
    (project / "requirements.txt").touch()
    (project / "pyproject.toml").write_text("[project]\nname = 'mine'")
    offer(additions("train.py", ("--name", "a: #b"), require="settings"), sure=True)
    settled = config.settle({}, project).options
    assert (settled.require.value, settled.steps) == ("settings", 8)
    assert (project / "pyproject.toml").read_text().startswith("[project]\nname = 'mine'\n")
    job = workflow(project)
    assert job["defaults"]["run"]["working-directory"] == "my models"
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs[0] == "pip install repro-audit -r requirements.txt ."
    assert runs[1].strip().endswith("train.py --name 'a: #b'")


def test_what_is_there_stays(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offer(additions("train.py", (), require="rerun"), sure=True)
    before = {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()}
    offer(additions("train.py", (), require="portable"), sure=True)
    assert {path: path.read_bytes() for path in before} == before
    assert "left as it is" in capsys.readouterr().out


def test_nothing_is_written_without_a_yes(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("yes"))  # no terminal
    offer(additions("train.py", (), require="rerun"), sure=False)
    assert "Nothing was written" in capsys.readouterr().out
    assert [path.name for path in project.iterdir()] == ["train.py"]


def test_a_target_that_is_not_there(project: Path) -> None:
    with pytest.raises(UsageError, match="no file tran"):
        additions("tran.py", (), require="rerun")


def test_the_command_of_the_workflow_audits(project: Path) -> None:
    """With what it installs in place: the last line of defence against a flag that does not exist."""
    offer(additions("train.py", (), require="rerun"), sure=True)
    (command,) = (
        step["run"] for step in workflow(project)["steps"] if "check" in step.get("run", "")
    )
    (project / "train.py").write_text("raise SystemExit(3)\n")
    here = Path(__file__).resolve().parents[3]
    command = command.replace("repro-audit check", f"{sys.executable} -m repro_audit check")
    ended = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(here)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    assert (project / "repro-audit.html").is_file()
