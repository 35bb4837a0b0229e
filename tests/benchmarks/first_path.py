"""A new user's path: install, audit of a script, the fix applied, the audit passes, the gate in CI.

Each step runs what the step before printed. `python -m tests.benchmarks.first_path` prints what each took; it installs
into an environment of its own, which downloads PyTorch, and with `--here` takes the running interpreter.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tests.auditing import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = """\
import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
rng = np.random.default_rng()
model = nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(20):
    x = torch.from_numpy(rng.standard_normal((16, 8), dtype="float32"))
    loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
"""What the user has: a script that seeds all but one generator."""
GATE = ".github/workflows/reproducibility.yml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command of the path."""

    what: str
    command: str
    exit_code: int
    printed: str
    seconds: float


class Shell:
    """The shell that a user sits at, in the directory of the project."""

    def __init__(self, directory: Path, commands: Path) -> None:
        self._directory = directory
        self._environment = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}
        for name in ("CI", "GITHUB_ACTIONS"):
            self._environment.pop(name, None)

    def run(self, what: str, command: str, given: str = "") -> Step:
        """Run a command as a shell does."""
        started = time.monotonic()
        ended = subprocess.run(
            ["/bin/bash", "-e", "-o", "pipefail", "-c", command],
            cwd=self._directory,
            env=self._environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        return Step(
            what=what,
            command=command,
            exit_code=ended.returncode,
            printed=ended.stdout + ended.stderr,
            seconds=time.monotonic() - started,
        )


def walked(project: Path, commands: Path, flags: str = "") -> Iterator[Step]:
    """The path, a step at a time, in a project that has the script; ends where a step does not say what comes next.

    Args:
        flags: of each audit, so that it takes less; the gate has none.
    """
    (project / "train.py").write_text(SCRIPT, encoding="utf-8")
    (project / ".git").mkdir()
    user = Shell(project, commands)
    check = " ".join(filter(None, ("repro-audit check", flags)))
    found = user.run("audit", f"{check} train.py")
    yield found
    more = said(r"^ +more +(-\w) shows each finding whole, with the code of its fix$", found)
    whole = user.run("see the fix", f"{check} {more} train.py")
    yield whole
    yield user.run("apply it", "patch -p0", fix(whole))
    passed = user.run("audit again", f"{check} train.py")
    yield passed
    init = said(r"^ +next +(repro-audit init .*?)(?: {2}|$)", passed)
    shown = user.run("see the gate", init)
    yield shown
    yield user.run("write it", said(r"this writes it: (.*)$", shown))
    yield user.run("the gate", gate(project))


def said(pattern: str, step: Step) -> str:
    """What a step printed of what comes next.

    Raises:
        ValueError: it did not.
    """
    found = re.search(pattern, step.printed, re.MULTILINE)
    if found is None:
        raise ValueError(f"{step.command!r} does not say what comes next:\n{step.printed}")
    return found[1]


def fix(step: Step) -> str:
    """The diff in a report."""
    return textwrap.dedent(said(r"((?:^ +--- .*\n)(?:^ +(?:\+\+\+|@@|[-+]).*\n)+)", step))


def gate(project: Path) -> str:
    """The command that CI runs."""
    workflow = yaml.safe_load((project / GATE).read_text(encoding="utf-8"))
    steps = workflow["jobs"]["repro-audit"]["steps"]
    commands = [str(step.get("run", "")) for step in steps]
    return next(command for command in commands if "repro-audit check" in command)


def installed(directory: Path) -> Step:
    """The command, installed as the README says, into an environment of its own."""
    user = Shell(REPOSITORY, directory)
    return user.run(
        "install",
        f"{sys.executable} -m venv {directory} && "
        f"{directory}/bin/pip install --quiet . -c tests/constraints.txt",
    )


def this_tree(directory: Path) -> Path:
    """A directory with a `repro-audit` that is this tree's, run by this interpreter."""
    directory.mkdir()
    command = directory / "repro-audit"
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m repro_audit "$@"\n'
    )
    command.chmod(0o755)
    return directory


def main() -> int:
    """Walk, and print each step as it ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.first_path")
    parser.add_argument("--here", action="store_true", help="install nothing")
    here = parser.parse_args().here
    print("| step | command | exit | seconds |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch, "project")
        project.mkdir()
        commands = Path(scratch, "bin")
        total = 0.0
        if here:
            this_tree(commands)
        else:
            step = installed(Path(scratch, "venv"))
            total += shown(step)
            commands = Path(scratch, "venv", "bin")
        for step in walked(project, commands):
            total += shown(step)
    print(f"| all | | | {total:.0f} |")
    return step.exit_code


def shown(step: Step) -> float:
    """Print a step; its seconds."""
    command = " ".join(step.command.split())
    print(f"| {step.what} | `{command}` | {step.exit_code} | {step.seconds:.1f} |", flush=True)
    return step.seconds


if __name__ == "__main__":
    raise SystemExit(main())
