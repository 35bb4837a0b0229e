"""`repro-audit init`: a configuration and a CI workflow for a target, shown first; what is there is left as it is."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from repro_audit.config import TABLE, load, repository
from repro_audit.errors import UsageError
from repro_audit.source import Scope
from repro_audit.target import parse

_WORKFLOW = ".github/workflows/reproducibility.yml"
_PROJECT = Path("pyproject.toml")
_CONFIGURATION = f"""\
[{TABLE}]
require = "{{require}}"  # the promise that the exit code enforces: rerun, settings or portable
steps = 8  # optimizer steps a trial
"""
_STEPS = """\
name: reproducibility

on: [push, pull_request]

jobs:
  repro-audit:
    runs-on: ubuntu-latest
    defaults:
      run:
        working-directory: {directory}
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "{python}"
      - run: pip install {packages}
      # It annotates the lines that break a promise, and writes the job's summary.
      - run: |
          repro-audit check -o repro-audit.html -o repro-audit.json {flags}{target}
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: repro-audit
          path: {reports}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """Text that a file gets at its end; a file that is not there is made."""

    path: Path
    text: str
    kept: str = ""
    """Why it gets none."""

    def write(self) -> None:
        """Write it: what the file holds stays as it is."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        before = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        gap = "\n" * (bool(before) + (bool(before) and not before.endswith("\n")))
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(gap + self.text)


def additions(target: str, arguments: tuple[str, ...], *, require: str | None) -> list[Addition]:
    """What a project gets for a target, in the current directory.

    Raises:
        UsageError: there is no such target, or pyproject.toml can not be read.
    """
    parse(target, arguments)
    here = Path.cwd()
    known = load(here)
    root = repository(here) or here  # of a repository, where GitHub looks for workflows
    workflow = root / _WORKFLOW
    directory = here.relative_to(root).as_posix()
    # A table that is there keeps its own promise: one that is asked for goes into the command.
    flags = f"--require {require} " if require and known.path is not None else ""
    return [
        Addition(
            path=_PROJECT,
            text=_CONFIGURATION.format(require=require or Scope.RERUN.value),
            kept="" if known.path is None else f"{os.path.relpath(known.path)} has [{TABLE}]",
        ),
        Addition(
            path=workflow,
            text=_STEPS.format(
                python=".".join(platform.python_version_tuple()[:2]),
                packages=_packages(),
                directory=json.dumps(directory, ensure_ascii=False),
                reports=json.dumps(f"{directory}/repro-audit.*", ensure_ascii=False),
                flags=flags,
                target=shlex.join([target, *arguments]),
            ),
            kept="it is there already" if workflow.exists() else "",
        ),
    ]


def _packages() -> str:
    """What a workflow has to install: the project's own requirements, where it says them."""
    found = ["repro-audit"]
    if Path("requirements.txt").is_file():
        found.append("-r requirements.txt")
    text = _PROJECT.read_text(encoding="utf-8") if _PROJECT.is_file() else ""
    if "[project]" in text or Path("setup.py").is_file():
        found.append(".")
    return " ".join(found)


def offer(
    wanted: list[Addition], target: tuple[str, ...], *, require: str | None, sure: bool
) -> None:
    """Show what would be written for a target and its arguments; write it where the user agrees.

    Raises:
        UsageError: a file can not be written.
    """
    for each in wanted:
        what = f"left as it is: {each.kept}" if each.kept else "gets"
        typer.echo(
            f"{os.path.relpath(each.path)} {what}" + ("" if each.kept else f"\n\n{each.text}")
        )
    new = [each for each in wanted if not each.kept]
    if not new:
        return
    if not sure and not (
        sys.stdin.isatty() and input("Write this? [y/N] ").lower() in {"y", "yes"}
    ):
        promise = ("--require", require) if require else ()
        again = shlex.join(("repro-audit", "init", "--yes", *promise, *target))
        typer.echo(f"Nothing was written; this writes it: {again}")
        return
    for each in new:
        try:
            each.write()
        except OSError as error:
            raise UsageError(f"{each.path} can not be written", why=str(error)) from error
        typer.echo(f"written: {os.path.relpath(each.path)}")
    check = shlex.join(("repro-audit", "check", *target))
    typer.echo(f"Next: commit both, and push; or run the check here: {check}")
