"""A function of this process as a target: named where a trial can import it, and else handed over by value."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import inspect
import linecache
import marshal
import shutil
import sys
import tempfile
import zlib
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from io import BytesIO
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from repro_audit.errors import UsageError
from repro_audit.probe.files import relative
from repro_audit.report.model import Report
from repro_audit.target import Target

_MODULE = "handed_over.py"
_LOADS = """\
\"\"\"A function that another process handed over.\"\"\"

import pickle

build = pickle.loads({pickled!r})
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CallableTarget:
    """A target that stands for a function."""

    target: Target
    directory: str = ""
    """Where sources lie that are in no file of the user's; empty where there is none."""

    def told(self, report: Report) -> Report:
        """The report, with those sources by the names that their cells have."""
        found: Report = _without(f"{self.directory}/", report) if self.directory else report
        return found


@contextmanager
def named(function: Callable[..., object]) -> Iterator[CallableTarget]:
    """A target that calls a function in trials.

    Raises:
        UsageError: it holds what can not be handed to another process, or is no function.
    """
    if not callable(function):
        raise UsageError(
            f"{function!r:.80} is neither a function nor a text, so it names no target.",
            next_step='give a function that returns what to train, or a text: "train.py:build"',
        )
    file = _importable(function)
    name = getattr(function, "__qualname__", None) or type(function).__name__
    if file is not None:
        yield CallableTarget(target=Target(spec=f"{file}:{name}", function=name, path=file))
        return
    directory = tempfile.mkdtemp(prefix="repro-audit-callable-")
    try:
        pickled = _pickled(function, Path(directory))
        path = Path(directory) / _MODULE
        path.write_text(_LOADS.format(pickled=pickled), encoding="utf-8")
        target = Target(spec=name, function="build", path=str(path))
        yield CallableTarget(target=target, directory=directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _importable(function: Any) -> str | None:
    """The file of a function that its module has under its name; None of any other."""
    if not isinstance(function, FunctionType) or "<" in function.__qualname__:
        return None
    file = inspect.getsourcefile(function)
    module = sys.modules.get(function.__module__)
    is_there = getattr(module, function.__name__, None) is function
    # The cells of a notebook are in no file, and a script that audits itself would do so again where it is imported.
    if (
        file is None
        or not is_there
        or module is sys.modules.get("__main__")
        or not Path(file).is_file()
    ):
        return None
    return relative(file)


def _pickled(function: object, directory: Path) -> bytes:
    written = BytesIO()
    try:
        with _by_value(inspect.getmodule(function)):
            _Pickler(written, directory).dump(function)
    except Exception as error:
        raise UsageError(
            f"{getattr(function, '__qualname__', function)} can not be handed to another process.",
            why=f"{type(error).__name__}: {error}",
            next_step="let it make what it needs itself, or define it at the top level of a module",
        ) from error
    return written.getvalue()


@contextmanager
def _by_value(module: ModuleType | None) -> Iterator[None]:
    """Hand over what a module defines, too, where no trial could import it: pytest may have it from a path alone."""
    top = "__main__" if module is None else module.__name__.partition(".")[0]
    if top == "__main__" or importlib.machinery.PathFinder.find_spec(top) is not None:
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc] # it has no annotations
    """Pickles by value what no other process can import; source text that is in no file goes along in one."""

    def __init__(self, file: BytesIO, directory: Path) -> None:
        # Before the pickler itself is made, which looks here then.
        self.dispatch_table = ChainMap(
            {CodeType: self._reduced}, cloudpickle.Pickler.dispatch_table
        )
        super().__init__(file)
        self._directory = directory

    def _reduced(self, code: CodeType) -> Any:
        """By marshal, which unlike cloudpickle keeps the file that the code is from."""
        return marshal.loads, (marshal.dumps(self._placed(code)),)

    def _placed(self, code: CodeType) -> CodeType:
        file = Path(code.co_filename)
        lines = [] if file.is_file() else linecache.getlines(code.co_filename)
        if lines:
            file = self._directory / _cell(lines)
            file.write_text("".join(lines), encoding="utf-8")
        inner = tuple(self._placed(e) if isinstance(e, CodeType) else e for e in code.co_consts)
        return code.replace(co_filename=str(file), co_consts=inner)


def _cell(lines: list[str]) -> str:
    """What IPython calls the cell with these lines: `In [4]`; of what it does not know, `input`."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    cells = shell.user_ns.get("In", []) if shell is not None else []
    text = "".join(lines).rstrip()
    number = next((n for n, cell in enumerate(cells) if cell.rstrip() == text), None)
    return f"input {zlib.crc32(text.encode()):x}" if number is None else f"In [{number}]"


def _without(directory: str, value: Any) -> Any:
    """A report, or a part of it, whose texts do not name a directory."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return value.replace(directory, "")
    if isinstance(value, tuple):
        return tuple(_without(directory, each) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return type(value)(**{name: _without(directory, part) for name, part in parts.items()})
    return value
