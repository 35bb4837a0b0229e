"""Running a notebook as a kernel runs it: its code cells in order, in one namespace."""

from __future__ import annotations
import __future__

import ast
import asyncio
import builtins
import difflib
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from repro_audit import notebook as notebooks
from repro_audit.notebook import Cell, Notebook

MAIN = "__main__"
_FUTURES = [getattr(__future__, name).compiler_flag for name in __future__.all_feature_names]


def put_first(directory: str) -> None:
    """Have imports look into a directory before all others."""
    sys.path.insert(0, directory)
    importlib.invalidate_caches()


class Kernel:
    """What is left of one run of all cells for the next one, in the same process: the namespace."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)  # noqa: PTH100 - as for scripts: no link is followed
        self._main: ModuleType | None = None
        self._shell: Any = None
        self._flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._loop: asyncio.AbstractEventLoop | None = None

    def run_all(self) -> None:
        """Run all cells. What one raises passes through, and ends it."""
        notebook = notebooks.read(Path(self._path))
        if self._main is None:
            self._main = self._start(notebook)
        os.chdir(os.path.dirname(self._path))  # noqa: PTH120 - where a kernel starts
        for cell in notebook.cells:
            self._run(cell, self._main)

    def _start(self, notebook: Notebook) -> ModuleType:
        notebook.remember(self._path)
        directory = os.path.dirname(self._path)  # noqa: PTH120
        sys.argv = [self._path]
        put_first(directory)
        main = ModuleType(MAIN)  # without __file__, as in a kernel
        main.__dict__["__builtins__"] = builtins
        sys.modules[MAIN] = main
        if any(cell.wants_ipython for cell in notebook.cells) and importlib.util.find_spec(
            "IPython"
        ):
            from repro_audit.trial.driver.ipython_shell import start

            self._shell = start(main, self._path, notebook)
        return main

    def _run(self, cell: Cell, main: ModuleType) -> None:
        code = self._compiled(cell)
        if self._shell is None:
            self._execute(code, main)
        else:
            with self._shell.builtin_trap:
                self._execute(code, main)

    def _execute(self, code: CodeType, main: ModuleType) -> None:
        if not code.co_flags & inspect.CO_COROUTINE:
            exec(code, main.__dict__)  # noqa: S102 - this is what the program is run for
            return
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(eval(code, main.__dict__))  # noqa: S307 - likewise

    def _compiled(self, cell: Cell) -> CodeType:
        """The code of a cell, its lines numbered as in the text of the notebook."""
        text = cell.text if self._shell is None else _transformed(cell.text, self._shell)
        try:
            code: CodeType = compile(
                "\n" * (cell.first - 1) + text, self._path, "exec", self._flags, dont_inherit=True
            )
        except SyntaxError as error:
            if error.lineno is not None and error.filename == self._path:
                error.filename = f"{self._path}, cell {cell.number}"
                error.lineno -= cell.first - 1
            raise
        # What a cell imports from __future__ holds for those after it too.
        self._flags |= code.co_flags & sum(_FUTURES)
        return code


def _transformed(text: str, shell: Any) -> str:
    """What IPython makes of a cell, every line where it was: a magic of several lines becomes one."""
    blank = len(text) - len(text.lstrip("\n"))
    before = text[blank:].split("\n")
    after = shell.transform_cell(text[blank:]).removesuffix("\n").split("\n")
    lines = [""] * blank
    matched = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for _, start, end, new_start, new_end in matched.get_opcodes():
        lines += after[new_start:new_end]
        lines += [""] * (end - start - new_end + new_start)
    return "\n".join(lines)
