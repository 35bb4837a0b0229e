"""Jupyter notebooks: the code cells as one text with one numbering of lines, and back to cells.

Everything that names a line of a program has a file and a number, so a notebook is one text here: its code cells, each
below a line that says which it is. Only what a reader sees has cells. They are counted as a kernel counts them that has
just been restarted and has run them all, `In [1]`, `In [2]`, and so on: code cells alone, and none that is blank.
"""

from __future__ import annotations

import ast
import bisect
import copy
import json
import linecache
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from repro_audit.errors import UsageError

SUFFIX = ".ipynb"
_FORMAT = 4
"""Of `nbformat`; notebooks of IPython 3 and later."""
_MAGIC = re.compile(r"\s*(?:[%!?]|[\w\s.,]+=\s*[%!])|\s*[^#\s].*\?\s*$")
"""A line that IPython turns into Python, where the cell is none as it stands: `%magic`, `!command`, `x = !ls`, `x?`."""
_BY_IPYTHON = re.compile(r"\b(?:get_ipython|display)\s*\(")
_HIDDEN, _HIDDEN_LINE = "pass  #~", "#~"
_FOUND_HIDDEN = re.compile(rf"^([ \t]*){_HIDDEN}|^{_HIDDEN_LINE}", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A code cell."""

    number: int
    """As a kernel counts; see above."""
    index: int
    """Among all cells of the document."""
    first: int
    """Where its first line is in the text of the notebook."""
    text: str

    @property
    def head(self) -> str:
        """The line of the notebook's text before it."""
        return f"# cell {self.number} of the notebook"

    @property
    def python(self) -> str:
        """The cell, line by line, with what is no Python hidden in comments."""
        return self.text if _is_python(self.text) else _hidden(self.text)

    @property
    def magic(self) -> str:
        """The first line that only IPython understands; empty where there is none."""
        pairs = zip(self.text.split("\n"), self.python.split("\n"), strict=True)
        return next((line.strip() for line, shown in pairs if line.strip() and line != shown), "")

    @property
    def wants_ipython(self) -> bool:
        """Whether it calls what IPython puts into its namespace, or has a magic."""
        return bool(self.magic or _BY_IPYTHON.search(self.text))


@dataclass(frozen=True, kw_only=True)
class Notebook:
    """A notebook whose language is Python."""

    document: dict[str, Any]
    """As `nbformat` has it."""
    cells: tuple[Cell, ...]
    """Those with code, in their order."""

    @cached_property
    def text(self) -> str:
        """All cells as they were written."""
        return "\n".join(part for cell in self.cells for part in (cell.head, cell.text))

    @cached_property
    def python(self) -> str:
        """All cells, line by line, with what is no Python hidden in comments."""
        return "\n".join(part for cell in self.cells for part in (cell.head, cell.python))

    def place(self, line: int) -> tuple[int, int]:
        """The cell that a line of the text is in, and which of its lines it is."""
        cell = self.cells[max(0, bisect.bisect([each.first for each in self.cells], line) - 1)]
        return cell.number, line - cell.first + 1

    def line(self, cell: int, line: int) -> int:
        """Where a line of a cell is in the text."""
        return self.cells[cell - 1].first + line - 1

    def changes(self, python: str) -> Iterator[tuple[Cell, str, str]]:
        """The cells that an edited `python` changes, each with its old and its new text, as they are written."""
        for cell, after in zip(self.cells, self._parts(python), strict=True):
            if after != cell.python:
                yield cell, cell.text, _FOUND_HIDDEN.sub(r"\1", after)

    def edited(self, python: str) -> str:
        """The notebook's file with an edited `python`."""
        document = copy.deepcopy(self.document)
        for cell, _, after in self.changes(python):
            document["cells"][cell.index]["source"] = after
        return json.dumps(document, ensure_ascii=False, indent=1)

    def _parts(self, python: str) -> Iterator[str]:
        """The text of each cell of an edited `python`."""
        rest = f"\n{python}"
        for after in (*self.cells[1:], None):
            end = len(rest) if after is None else rest.index(f"\n{after.head}\n")
            yield rest[:end].split("\n", 2)[2]
            rest = rest[end:]

    def remember(self, path: str) -> None:
        """Have tracebacks, and whoever asks for lines of code, find the text under the notebook's path."""
        lines = [f"{line}\n" for line in self.text.split("\n")]
        linecache.cache[path] = (len(self.text), None, lines, path)


def read(path: Path) -> Notebook:
    """Read a notebook.

    Raises:
        UsageError: it is no notebook, or none that Python runs.
    """
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path} is no notebook: {error}.") from None
    except OSError as error:
        raise UsageError(f"{path} can not be read: {error.strerror}.") from None
    cells = document.get("cells") if isinstance(document, dict) else None
    if not isinstance(cells, list) or document.get("nbformat") != _FORMAT:
        raise UsageError(
            f"{path} is no notebook of format {_FORMAT}.",
            next_step=f"if it is an old one: jupyter nbconvert --to notebook --inplace {path}"
            if isinstance(document, dict) and "nbformat" in document
            else "",
        )
    language = _language(document)
    if language.lower() not in {"python", "ipython", ""}:
        raise UsageError(f"{path} is a notebook in {language}, not in Python.")
    found = tuple(_code_cells(cells))
    if not found:
        raise UsageError(f"{path} has no cell with code.")
    return Notebook(document=document, cells=found)


def of_file(file: str | Path) -> Notebook | None:
    """The notebook that a file is; None for any other file, and for one that can not be read."""
    if not str(file).endswith(SUFFIX):
        return None
    try:
        return _known(os.path.abspath(file), Path(file).stat().st_mtime_ns)  # noqa: PTH100 - no link is followed
    except (OSError, UsageError):
        return None


def place(file: str, line: int, root: Path | None = None) -> str:
    """A line of the program's, for its reader: `train.py:12`, or `train.ipynb, cell 4, line 2`.

    Args:
        root: where a relative file begins; None for the working directory.
    """
    notebook = of_file(file if root is None else root / file)
    if notebook is None:
        return f"{file}:{line}"
    return in_cell(file, *notebook.place(line))


def in_cell(file: str, cell: int, line: int) -> str:
    """A line of a cell, for its reader."""
    return f"{file}, cell {cell}, line {line}"


@lru_cache(maxsize=16)
def _known(path: str, _changed: int) -> Notebook:
    return read(Path(path))


def _language(document: dict[str, Any]) -> str:
    """What the kernel speaks; empty where the notebook does not say."""
    metadata = document.get("metadata")
    for part, key in (("language_info", "name"), ("kernelspec", "language")):
        entry = metadata.get(part) if isinstance(metadata, dict) else None
        name = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(name, str) and name:
            return name
    return ""


def _code_cells(cells: list[Any]) -> Iterator[Cell]:
    number = line = 0
    for index, cell in enumerate(cells):
        source = cell.get("source", "") if isinstance(cell, dict) else ""
        parts = [source] if isinstance(source, str) else source
        text = "".join(map(str, parts)).replace("\r\n", "\n")
        if not isinstance(cell, dict) or cell.get("cell_type") != "code" or not text.strip():
            continue
        number, line = number + 1, line + 2  # a line for its head
        yield Cell(number=number, index=index, first=line, text=text)
        line += text.count("\n")


# Magics


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _hidden(text: str) -> str:
    """A cell that is no Python: its magics as comments; all of it where it is in another language (`%%bash`)."""
    lines = text.split("\n")
    start = next(number for number, line in enumerate(lines) if line.strip())
    whole = lines[start].lstrip().startswith("%%")
    shown, goes_on = [], False
    for number, line in enumerate(lines):
        if goes_on or (whole and number == start):
            shown.append(_HIDDEN_LINE + line)
        elif _MAGIC.match(line):
            indent = line[: len(line) - len(line.lstrip())]
            shown.append(f"{indent}{_HIDDEN}{line.lstrip()}")
        else:
            shown.append(line)
        goes_on = shown[-1] != line and line.endswith("\\")
    python = "\n".join(shown)
    return (
        "\n".join(_HIDDEN_LINE + line for line in lines)
        if whole and not _is_python(python)
        else python
    )
