"""Running a program as Python runs it: `python train.py ARGS`, `python -m pkg.train ARGS`, or a notebook's cells."""

from __future__ import annotations

import builtins
import functools
import importlib.machinery
import importlib.util
import os
import sys
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from repro_audit.errors import TargetError, TrainsElsewhereError
from repro_audit.probe import Probe
from repro_audit.target import Target
from repro_audit.trial.driver.cells import MAIN, Kernel, put_first

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


class Script:
    """A program that runs as `__main__`, by itself: nobody seeds it, and nothing of it is called."""

    def __init__(self, target: Target) -> None:
        self.name = target.spec
        self._target = target
        self._kernel = Kernel(str(target.path)) if target.is_notebook else None

    def __call__(self) -> None:
        """Run it to its end. What it raises passes through."""
        if self._kernel is not None:
            self._kernel.run_all()
            return
        code, main = self._file() if self._target.path is not None else self._module()
        main.__dict__["__builtins__"] = builtins
        sys.addaudithook(partial(_refuse_another_program, os.getpid()))
        # It stays there: what the program leaves running may still look for it.
        sys.modules[MAIN] = main
        exec(code, main.__dict__)  # noqa: S102 - this is what the program is run for

    def _file(self) -> tuple[CodeType, ModuleType]:
        path = os.path.abspath(str(self._target.path))  # noqa: PTH100 - as Python has it: no link is followed
        spec = self._target.spec
        sys.argv = [path if os.path.isabs(spec) else spec, *self._target.argv]  # noqa: PTH117
        put_first(os.path.dirname(os.path.realpath(path)))  # noqa: PTH120
        code = compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
        main = ModuleType(MAIN)
        main.__file__ = path
        main.__loader__ = importlib.machinery.SourceFileLoader(MAIN, path)
        main.__dict__["__cached__"] = None
        return code, main

    def _module(self) -> tuple[CodeType, ModuleType]:
        name = str(self._target.module)
        put_first(os.getcwd())  # noqa: PTH109 - what Python itself puts there
        sys.argv = ["-m", *self._target.argv]
        spec, code = _find(name)
        main = ModuleType(MAIN)
        main.__spec__, main.__loader__, main.__package__ = spec, spec.loader, spec.parent
        main.__file__ = spec.origin
        main.__dict__["__cached__"] = spec.cached
        sys.argv[0] = spec.origin or name
        return code, main


def _refuse_another_program(process: int, event: str, _arguments: object) -> None:
    """Raise where the script has its process run another program, in which nobody would see it train."""
    if event == "os.exec" and os.getpid() == process:
        raise TargetError(
            "The script replaces its own process by a new one (os.exec), in which it can not be watched.",
            why="programs do so to have PYTHONHASHSEED or other variables set before they start",
            next_step="have it run as a command, in which every Python is watched: repro-audit check -- python ...",
        )


def watch_for_ranks(probe: Probe) -> None:
    """Once torch is there: end a program that is about to train in processes that it spawns, which nobody would see.

    Those that spawn others without `torch.multiprocessing.spawn` are found out by their end: nothing trained.
    """
    spawning: Any = sys.modules["torch.multiprocessing.spawn"]
    original = spawning.start_processes

    @functools.wraps(original)
    def start_processes(*args: Any, **kwargs: Any) -> Any:
        if probe.installed and not probe.steps:
            raise TrainsElsewhereError("The program trains in processes that it spawns.")
        return original(*args, **kwargs)

    spawning.start_processes = start_processes


def _find(name: str) -> tuple[ModuleSpec, CodeType]:
    """A module and its code, of a package that of its `__main__`; packages around it are imported."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        name = f"{name}.{MAIN}"
        spec = importlib.util.find_spec(name)
    code = spec.loader.get_code(name) if spec and hasattr(spec.loader, "get_code") else None  # type: ignore[union-attr]
    if spec is None or code is None:
        raise TargetError(
            f"Python finds no code of a module {name}.",
            where=f"-m {name}",
            next_step="is it spelt right, and can it be imported from here?",
        )
    return spec, code
