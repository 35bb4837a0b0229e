"""The commands that run no trial: versions, what this machine can do, completion."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from repro_audit import __version__
from repro_audit.cli import checkup
from tests.auditing import REPOSITORY, environment

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND = (sys.executable, "-m", "repro_audit")


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.audit
def test_the_version_and_the_environment() -> None:
    assert run("--version").stdout == f"repro-audit {__version__}\n"
    said = run("--version", "-v").stdout
    assert said.startswith(f"repro-audit {__version__}\nPython 3.")
    assert "\ntorch 2." in said
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(
        r'^    "(\w+)[<>=][^;\n]*",$', project.partition("[project.opt")[0], re.MULTILINE
    )
    assert len(needed) > 5
    assert [name for name in needed if f"\n{name} " not in said] == []


@pytest.mark.audit
def test_no_command_at_all() -> None:
    ended = run("-v")
    assert ended.returncode == 2
    assert "no command is named" in ended.stderr


@pytest.mark.audit
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("repro-audit explain num", ["numpy-rng", "num-workers"]),
        ("repro-audit check --only hash", ["hash-seed"]),
        ("repro-audit doc", ["doctor"]),
        ("repro-audit report --format ju", ["junit"]),
    ],
)
def test_shells_complete_commands_sources_and_formats(typed: str, completed: list[str]) -> None:
    variables = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    installed = (
        "import sys; sys.argv = ['repro-audit']; from repro_audit.__main__ import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", installed],
        env={**environment(), **variables, "_REPRO_AUDIT_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == completed


@pytest.mark.audit
def test_the_doctor_says_what_is_there_and_what_not(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run("doctor")
    assert said.returncode == 0
    assert "sources can be tried here" in said.stdout
    missing = {line.what for line in checkup.examined() if not line.ready}
    assert "torch" not in missing
    monkeypatch.setattr(checkup, "_version", lambda _: None)
    monkeypatch.setenv("PATH", "")
    missing = {line.what for line in checkup.examined() if not line.ready}
    assert {"torch", "launchers"} <= missing


def shown_on_a_terminal(words: tuple[str, ...], variables: Mapping[str, str]) -> str:
    """What a command leaves on a terminal of 24 lines."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *words],
        env={**environment(), **variables, "LINES": "24", "COLUMNS": "80"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # how Linux says that nobody writes any more
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    return shown.decode()


@pytest.mark.audit
def test_a_long_page_goes_through_the_pager() -> None:
    pager = {"PAGER": "grep -c ."}
    assert int(shown_on_a_terminal(("explain", "hash-seed"), pager)) > 24
    assert "hash-seed" in run("explain", "hash-seed", **pager).stdout
