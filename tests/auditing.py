"""Runs the command as a user does, in a directory of its own, and validates every report against the schema."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from repro_audit.report import as_json
from repro_audit.sources import cpu_isa

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLES = REPOSITORY / "sample_models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What one run of the command left."""

    exit_code: int
    report: dict[str, Any]
    """The JSON report; empty where none was written."""
    terminal: str

    def source(self, name: str) -> dict[str, Any]:
        """One source's entry."""
        (entry,) = (source for source in self.report["sources"] if source["id"] == name)
        return dict(entry)

    @property
    def broke(self) -> set[str]:
        """The ids of the sources that broke."""
        return {source["id"] for source in self.report["sources"] if source["status"] == "broke"}


def write_target(directory: Path, body: str, name: str = "train.py") -> Path:
    """Write a program into a new tree below `directory`."""
    tree = directory / "tree"
    tree.mkdir(exist_ok=True)
    path = tree / name
    path.write_text(textwrap.dedent(body), encoding="utf-8")
    return path


class Check(Protocol):
    """Audits a target."""

    def __call__(
        self, spec: str, *options: str, cwd: Path, saved: Path, baseline: bool = True
    ) -> Audited:
        """As `check`."""
        ...


in_process: list[Check] = []
"""What `check` does instead, the last of them, while a test module shares interpreters."""


def check(spec: str, *options: str, cwd: Path, saved: Path, baseline: bool = True) -> Audited:
    """Audit a target from `cwd`; the JSON report goes to `saved`.

    With `baseline`, this CPU counts as the smallest one, so that audits find the same on every machine. Otherwise
    nearly every program breaks `cpu-isa`: hardly a step is without a kernel that another CPU rounds otherwise.
    """
    if in_process:
        return in_process[-1](spec, *options, cwd=cwd, saved=saved, baseline=baseline)
    ended = subprocess.run(
        command("--verbose", "--json", str(saved), spec, *options),
        cwd=cwd,
        env=environment(baseline=baseline),
        capture_output=True,
        text=True,
        check=False,
    )
    return read(saved, exit_code=ended.returncode, terminal=ended.stderr + ended.stdout)


def read(saved: Path, *, exit_code: int, terminal: str) -> Audited:
    """What an audit left, its report validated."""
    report = json.loads(saved.read_text(encoding="utf-8")) if saved.exists() else {}
    if report:
        if importlib.util.find_spec(
            "jsonschema"
        ):  # absent where `tests.gpu` runs and nothing can be installed
            import jsonschema

            jsonschema.validate(report, as_json.schema())
        assert report["exit_code"] == exit_code, terminal
    return Audited(exit_code=exit_code, report=report, terminal=terminal)


def command(spec: str, *options: str) -> list[str]:
    """The command line of an audit."""
    return [sys.executable, "-m", "repro_audit", "check", spec, *options]


def environment(*, baseline: bool = True) -> dict[str, str]:
    """The caller's, with this tree importable, and kernels for the smallest CPU if wished."""
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    caps = {**cpu_isa.capped(cpu_isa.ALL), **cpu_isa.environment(cpu_isa.ALL)} if baseline else {}
    return {**os.environ, **caps, "PYTHONPATH": path, "COLUMNS": "80"}


def fingerprint(tree: Path) -> dict[str, str]:
    """Every file, directory and link below `tree`, with mode, time of change and content."""
    found = {}
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        digest = hashlib.sha256(content).hexdigest()
        found[str(path.relative_to(tree))] = f"{status.st_mode:o} {status.st_mtime_ns} {digest}"
    return found
