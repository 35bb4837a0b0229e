"""What CI runs: the files that `init` writes, the action and the hook; and that nothing of a project is lost."""

from __future__ import annotations

import importlib.resources
import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from repro_audit import config
from repro_audit.cli.init_files import additions, offer
from repro_audit.errors import UsageError
from tests.auditing import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


ACTION = REPOSITORY / ".github" / "actions" / "repro-audit" / "action.yml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    directory = tmp_path / "my: models #2"
    directory.mkdir()
    (directory / "train.py").write_text("import torch\n")
    monkeypatch.chdir(directory)
    return directory


def offered(arguments: tuple[str, ...], require: str | None, *, sure: bool) -> None:
    """What `init` does with the script of the project."""
    wanted = additions("train.py", arguments, require=require)
    offer(wanted, ("train.py", *arguments), require=require, sure=sure)


def workflow(project: Path) -> Any:
    text = (project.parent / ".github" / "workflows" / "reproducibility.yml").read_text()
    return yaml.safe_load(text)["jobs"]["repro-audit"]


def test_a_project_gets_a_table_and_a_workflow(project: Path) -> None:
    (project / "requirements.txt").touch()
    (project / "pyproject.toml").write_text("[project]\nname = 'mine'")
    offered(("--name", "a: #b"), "settings", sure=True)
    settled = config.settle({}, project).options
    assert (settled.require.value, settled.steps) == ("settings", 8)
    assert (project / "pyproject.toml").read_text().startswith("[project]\nname = 'mine'\n")
    job = workflow(project)
    assert job["defaults"]["run"]["working-directory"] == "my: models #2"
    assert job["steps"][-1]["with"]["path"] == "my: models #2/repro-audit.*"
    runs = [step["run"] for step in job["steps"] if "run" in step]
    assert runs[0] == "pip install repro-audit -r requirements.txt ."
    assert runs[1].strip().endswith("train.py --name 'a: #b'")


def test_a_promise_that_is_asked_for_is_enforced_where_a_table_has_another(project: Path) -> None:
    (project.parent / "pyproject.toml").write_text("[tool.repro-audit]\nrequire = 'rerun'\n")
    table, _ = additions("train.py", (), require=None)
    assert table.kept == "../pyproject.toml has [tool.repro-audit]"
    offered((), "settings", sure=True)
    assert workflow(project)["steps"][-2]["run"].strip().endswith("--require settings train.py")


def valid(document: Any, kind: str) -> bool:
    """Whether GitHub's own schema takes it, as check-jsonschema brings it along."""
    place = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((place / f"{kind}.json").read_text("utf-8"))
    return bool(jsonschema.validators.validator_for(schema)(schema).is_valid(document))


def test_workflow_and_action_are_what_github_takes(project: Path) -> None:
    offered((), "rerun", sure=True)
    path = project.parent / ".github" / "workflows" / "reproducibility.yml"
    written = yaml.safe_load(path.read_text())
    written["on"] = written.pop(True)  # what YAML 1.1 takes the word for
    assert valid(written, "github-workflows")
    action = yaml.safe_load(ACTION.read_text())
    assert valid(action, "github-actions")
    del action["runs"]["using"], written["on"]
    assert not valid(action, "github-actions")
    assert not valid(written, "github-workflows")


def test_what_is_there_stays(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    offered((), "rerun", sure=True)
    before = {path: path.read_bytes() for path in project.parent.rglob("*") if path.is_file()}
    offered((), "portable", sure=True)
    assert {path: path.read_bytes() for path in before} == before
    assert "left as it is" in capsys.readouterr().out


def test_nothing_is_written_without_a_yes(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("yes"))  # no terminal
    offered((), "rerun", sure=False)
    said = "Nothing was written; this writes it: repro-audit init --yes --require rerun train.py"
    assert said in capsys.readouterr().out
    assert [path.name for path in project.iterdir()] == ["train.py"]


def test_a_target_that_is_not_there(project: Path) -> None:
    with pytest.raises(UsageError, match="no file tran"):
        additions("tran.py", (), require="rerun")


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment whose `repro-audit` is this tree's."""
    directory = tmp_path / "bin"
    directory.mkdir()
    command = directory / "repro-audit"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m repro_audit "$@"\n')
    command.chmod(0o755)
    places = {"PATH": f"{directory}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    return {**os.environ, **places, "GITHUB_ACTIONS": "false"}


def ended(script: str, project: Path, environment: dict[str, str]) -> int:
    """The exit status of a step on a program that fails at once: what it says of the flags is the same."""
    (project / "train.py").write_text("raise SystemExit(3)\n")
    words = ["/bin/bash", "-e", "-o", "pipefail", "-c", script]
    return subprocess.run(words, cwd=project, env=environment, check=False).returncode


@pytest.mark.audit
def test_the_command_of_the_workflow_audits(project: Path, installed: dict[str, str]) -> None:
    offered((), "rerun", sure=True)
    (command,) = (
        step["run"] for step in workflow(project)["steps"] if "check" in step.get("run", "")
    )
    assert ended(command, project, installed) == 3
    assert (project / "repro-audit.html").is_file()


@pytest.mark.audit
def test_the_action_audits(project: Path, installed: dict[str, str]) -> None:
    action = yaml.safe_load(ACTION.read_text())
    install, check, upload = action["runs"]["steps"]
    assert all(
        "${{" not in step["run"] for step in (install, check)
    )  # nothing is pasted into a shell
    given = {"TARGET": "train.py --lr 0.1", "REQUIRE": "settings", "FLAGS": "--steps 2"}
    assert set(given) == set(check["env"])
    assert ended(check["run"], project, {**installed, **given}) == 3
    assert {path.suffix for path in project.glob(upload["with"]["path"])} == {
        ".json",
        ".html",
        ".sarif",
    }
    saved = json.loads((project / action["outputs"]["report"]["value"]).read_text())
    assert (saved["require"], saved["settings"]["steps"]) == ("settings", 2)
    assert saved["target"]["argv"] == ["--lr", "0.1"]


@pytest.mark.audit
def test_the_hook_audits(project: Path, installed: dict[str, str]) -> None:
    (hook,) = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())
    assert not hook["pass_filenames"]
    assert ended(f"{hook['entry']} train.py", project, installed) == 3
