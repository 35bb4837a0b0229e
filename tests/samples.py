"""What an audit of each program in `sample_models` must find, under the default `--require rerun`.

It follows from a line below the program's docstring, a table of TOML: `# expect broke = ["clock"], cuda = true`.

`cpu-isa` apart: a program breaks it wherever another CPU's kernels round otherwise, which on most machines is every
program but those that cap the instruction sets themselves.
"""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from repro_audit.source import Scope
from repro_audit.sources import catalogue, cpu_isa

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CPU_ISA = cpu_isa.SOURCE.id
REPRODUCIBLE = "reproducible"
NOT_REPRODUCIBLE = "not-reproducible"
PROGRAMS = Path(__file__).resolve().parents[1] / "sample_models"
EXPECT = re.compile(r"^# expect (.*)$", re.MULTILINE)


def expected(text: str) -> dict[str, Any]:
    """What a program's text says that an audit must find."""
    (table,) = EXPECT.findall(text)
    found: dict[str, Any] = tomllib.loads(f"expect = {{ {table} }}")["expect"]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One program and what its audit must say."""

    name: str
    """The file `sample_models/NAME.py`; its target is `build`."""
    broke: tuple[str, ...]
    """The ids of the sources with the status `broke`, sorted; all others have another one."""
    capped: bool = False
    """The program caps the instruction sets itself, so that `cpu-isa` must not break either."""
    cuda: bool = False
    """It breaks only on a CUDA device; without one nothing does."""

    @classmethod
    def read(cls, name: str, text: str) -> Sample:
        """The sample with a program's name and text."""
        table = expected(text)
        return cls(name=name, **{**table, "broke": tuple(sorted(table["broke"]))})

    @property
    def verdict(self) -> str:
        """What a report says where all of `broke` shows."""
        scopes = {catalogue()[name].scope for name in self.broke}
        return NOT_REPRODUCIBLE if Scope.RERUN in scopes else REPRODUCIBLE

    @property
    def shows(self) -> bool:
        """Whether this machine can show what breaks."""
        return not self.cuda or torch.cuda.is_available()

    @property
    def exit_code(self) -> int:
        """What the command exits with: sources of a wider scope than `rerun` break no required promise."""
        return 0 if self.verdict == REPRODUCIBLE or not self.shows else 1

    def wrong(self, report: dict[str, Any]) -> str:
        """What is wrong with a report about it; empty where nothing is."""
        broke = {source["id"] for source in report["sources"] if source["status"] == "broke"}
        emulated = set() if self.capped else {CPU_ISA}
        expected = set(self.broke) if self.shows else set()
        verdict = self.verdict if self.shows else REPRODUCIBLE
        if CPU_ISA in expected and platform.machine() not in cpu_isa.X86:
            expected.remove(CPU_ISA)
        said = [f"overlooked: {name}" for name in sorted(expected - broke)]
        said += [f"accused: {name}" for name in sorted(broke - expected - emulated)]
        if report["verdict"] != verdict or report["exit_code"] != self.exit_code:
            said.append(f"verdict: {report['verdict']}, exit {report['exit_code']}")
        if report["unexplained"] is not None:
            said.append("something is unexplained")
        return "; ".join(said)


SAMPLES = tuple(
    Sample.read(path.stem, path.read_text(encoding="utf-8"))
    for path in sorted(PROGRAMS.glob("*.py"))
)
