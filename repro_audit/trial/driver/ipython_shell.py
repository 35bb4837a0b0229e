"""IPython's shell for the cells of a notebook, without a terminal or a history. It imports IPython."""

from __future__ import annotations

import ast
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from IPython.core.compilerop import CachingCompiler
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from repro_audit.notebook import Notebook


class _Compiler(CachingCompiler):
    """Compiles what magics are given (`%%time`, `%time`) as lines of the notebook, which they are."""

    path: str
    notebook: Notebook

    def ast_parse(self, *args: Any, **options: Any) -> ast.AST:
        """Parse, and number the lines as the notebook does."""
        tree: ast.Module = super().ast_parse(*args, **options)
        line = self._running()
        if line:
            ast.increment_lineno(tree, self._first(line) - 1)
        return tree

    def __call__(self, source: Any, filename: str, *args: Any, **options: Any) -> Any:
        name = self.path if self._running() else filename
        return super().__call__(source, name, *args, **options)

    def _running(self) -> int:
        """The notebook's line that runs a magic; 0 where none does."""
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename != self.path:
            frame = frame.f_back
        return frame.f_lineno if frame.f_code.co_filename == self.path else 0

    def _first(self, line: int) -> int:
        """Where the code of a magic begins: on its own line, or below it; IPython drops what is blank there."""
        lines = self.notebook.text.split("\n")
        if lines[line - 1].lstrip().startswith("%%"):
            line += 1
            while line < len(lines) and not lines[line - 1].strip():
                line += 1
        return line


class _Shell(InteractiveShell):
    """Raises what a cell raises, where a kernel would only show it."""

    compiler_class = _Compiler

    def run_cell(self, *args: Any, **options: Any) -> Any:
        """Run what `%%capture` has been given."""
        result = super().run_cell(*args, **options)
        result.raise_error()
        return result

    def showtraceback(self, *args: Any, **options: Any) -> None:
        """Show nothing: it is raised."""

    def enable_gui(self, gui: Any = None) -> None:
        """Have no event loop of a window: `%matplotlib inline` asks for none either."""


def start(main: ModuleType, path: str, notebook: Notebook) -> Any:
    """Make the process's shell, whose namespace is `main`."""
    config = Config()
    config.HistoryManager.enabled = False
    home = Path(tempfile.gettempdir()) / "ipython"
    shell = _Shell.instance(user_module=main, ipython_dir=str(home), config=config)
    shell.compile.path, shell.compile.notebook = path, notebook
    return shell
