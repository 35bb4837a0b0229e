"""`repro-audit doctor`: what an audit on this machine could try, what not, and why."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from repro_audit import __version__
from repro_audit.findings.summary import untested
from repro_audit.isolation.sandbox import plan_isolation
from repro_audit.report import text
from repro_audit.report.style import TerminalStyle, indented, words
from repro_audit.report.terminal import print_whole
from repro_audit.sources import catalogue, installed
from repro_audit.sources._exercise import Answer, prospect, this_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

_PACKAGES = (
    "torch",
    "numpy",
    "typer",
    "rich",
    "jinja2",
    "sympy",
    "xxhash",
    "cloudpickle",
    "tomlkit",
)
"""All that this one needs, as pyproject.toml lists them."""
_LAUNCHERS = ("torchrun", "accelerate", "deepspeed", "srun", "uv")
_ISOLATION = {
    "overlay": "each trial has a copy-on-write overlay of the directory",
    "copy": "each trial has a copy of the directory",
    "shared": "trials write to the directory itself",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that an audit may need."""

    what: str
    ready: bool
    said: str


def versions() -> list[str]:
    """The environment, a line each: what a bug report needs."""
    found = [f"Python {platform.python_version()} ({sys.executable})", platform.platform()]
    return [*found, *(f"{name} {_version(name) or 'is not installed'}" for name in _PACKAGES)]


def print_checkup(console: Console) -> bool:
    """Print what an audit could do here; whether there is anything that it could."""
    look = TerminalStyle.of(console)
    lines = list(examined())
    sources = _sources()
    could = sum(1 for line in sources if line.ready)
    print_whole(
        [
            Text(f"repro-audit {__version__}", "dim"),
            _table(lines, look),
            Text(""),
            words(
                f"{could} of {len(sources)} sources can be tried here, if a program gives occasion; not these:"
            ),
            _table([line for line in sources if not line.ready], look),
            *(words(f"note: {note}", "yellow") for note in installed().notes),
        ],
        console,
        look,
    )
    return all(line.ready for line in lines if line.what == "torch")


def examined() -> Iterator[Line]:
    """Everything but the sources."""
    yield Line(what="Python", ready=True, said=f"{platform.python_version()}, {sys.executable}")
    yield from _torch()
    plan = plan_isolation(Path.cwd())
    try:
        said = text.listed(filter(None, (_ISOLATION[plan.kind], plan.reason)))
        yield Line(what="isolation", ready=plan.kind != "shared", said=said)
    finally:
        plan.cleanup()
    methods = multiprocessing.get_all_start_methods()
    yield Line(what="start methods", ready=len(methods) > 1, said=text.listed(methods))
    there = [name for name in _LAUNCHERS if shutil.which(name)]
    yield Line(
        what="launchers", ready=bool(there), said=text.listed(there) or "none is on the PATH"
    )
    ipython = importlib.util.find_spec("IPython") is not None
    magics = "notebooks with magics can run" if ipython else "pip install ipython, for magics"
    yield Line(what="notebooks", ready=ipython, said=magics)


def _torch() -> Iterator[Line]:
    version = _version("torch")
    if version is None:
        yield Line(what="torch", ready=False, said="it is not installed in this environment")
        return
    import torch

    note = untested(version, sys.version_info[:2])
    yield Line(what="torch", ready=True, said=text.listed(filter(None, (version, note))))
    threads = text.plural(torch.get_num_threads(), "thread")
    kernels = torch.backends.cpu.get_cpu_capability()
    yield Line(what="CPU", ready=True, said=f"kernels for {kernels}, {threads} of {os.cpu_count()}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [f"cuda:{number} {torch.cuda.get_device_name(number)}" for number in range(count)]
    built = (
        "this torch is built for CUDA" if torch.version.cuda else "this torch is built without CUDA"
    )
    yield Line(what="CUDA", ready=bool(names), said=text.listed(names) or f"no device; {built}")


def _sources() -> list[Line]:
    here = this_machine()
    answers = {name: prospect(source, here) for name, source in catalogue().items()}
    return [
        Line(what=name, ready=answer.answer is not Answer.NO, said=answer.in_short)
        for name, answer in answers.items()
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _table(lines: list[Line], look: TerminalStyle) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for line in lines:
        sign = Text(look.good, "green") if line.ready else Text("-", "yellow")
        grid.add_row(sign, Text(line.what, "bold"), words(line.said))
    return Group(indented(grid, 2))
