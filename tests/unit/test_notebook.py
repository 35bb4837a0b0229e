"""Notebooks: their text, the places in it, and how their cells run."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit import notebook as notebooks
from repro_audit.errors import UsageError
from repro_audit.fixes.code import Code, diff
from repro_audit.notebook import place, read
from repro_audit.target import parse
from tests.auditing import environment
from tests.notebooks import MARKDOWN, document, write_notebook

if TYPE_CHECKING:
    from pathlib import Path

needs_ipython = pytest.mark.skipif(
    importlib.util.find_spec("IPython") is None, reason="IPython is not installed"
)
CELLS = (f"{MARKDOWN}# Title", "a = 1\nb = 2", "", f"{MARKDOWN}text", " \n", "c = 3\n\nd = 4")


# Places


def test_code_cells_are_counted_as_a_kernel_counts_them(tmp_path: Path) -> None:
    notebook = read(write_notebook(tmp_path / "train.ipynb", *CELLS))
    assert [(cell.number, cell.text) for cell in notebook.cells] == [
        (1, "a = 1\nb = 2"),
        (2, "c = 3\n\nd = 4"),
    ]


def test_each_line_has_a_place_and_is_found_by_it(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "train.ipynb", *CELLS)
    notebook = read(path)
    lines = notebook.text.split("\n")
    at = lines.index("d = 4") + 1
    assert notebook.place(at) == (2, 3)
    assert notebook.line(2, 3) == at
    assert place(str(path), at) == f"{path}, cell 2, line 3"
    for cell in notebook.cells:
        for number, text in enumerate(cell.text.split("\n"), 1):
            assert lines[notebook.line(cell.number, number) - 1] == text
            assert notebook.place(notebook.line(cell.number, number)) == (cell.number, number)


def test_a_line_of_another_file_has_the_files_own_number(tmp_path: Path) -> None:
    assert place("train.py", 12) == "train.py:12"
    (tmp_path / "torn.ipynb").write_text("{")
    assert place(str(tmp_path / "torn.ipynb"), 12) == f"{tmp_path / 'torn.ipynb'}:12"


def test_a_notebook_that_changes_is_read_again(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "train.ipynb", "a = 1")
    assert place(str(path), 2).endswith("cell 1, line 1")
    write_notebook(path, "a = 1", "b = 2")
    assert place(str(path), 4).endswith("cell 2, line 1")


# Edits


def test_an_edit_ends_up_in_its_cell(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "train.ipynb", *CELLS)
    notebook = read(path)
    after = notebook.python.replace("c = 3", "seed(0)\nc = 3")
    written = json.loads(notebook.edited(after))
    assert written["cells"][5]["source"] == "seed(0)\nc = 3\n\nd = 4"
    del written["cells"][5]
    assert written["cells"] == document(*CELLS[:5])["cells"]
    shown = diff(Code(file="train.ipynb", text=notebook.python, lines=(), notebook=notebook), after)
    assert shown.splitlines() == [
        "--- train.ipynb, cell 2",
        "+++ train.ipynb, cell 2",
        "@@ -0,0 +1 @@",
        "+seed(0)",
    ]


def test_an_edit_of_nothing_changes_no_cell(tmp_path: Path) -> None:
    notebook = read(write_notebook(tmp_path / "train.ipynb", *CELLS))
    assert not list(notebook.changes(notebook.python))
    assert json.loads(notebook.edited(notebook.python)) == document(*CELLS)


MAGICS = {
    "%matplotlib inline\nx = 1": "x = 1",
    "if x:\n    !ls *.csv\ny = 1": "if x:\n    pass\ny = 1",
    "files = !ls\nx = 1": "pass\nx = 1",
    "print?\nx = 1": "pass\nx = 1",
    "!pip install \\\n  a \\\n  b\nx = 1": "pass\nx = 1",
    "%%time\nx = 1\ny = 2": "x = 1\ny = 2",
    "\n%%capture out\n%load_ext a\nx = 1": "pass\nx = 1",
    "%%bash\nfor i in 1 2; do echo $i; done": "",
}


@pytest.mark.parametrize("cell", MAGICS)
def test_magics_are_hidden_where_python_is_read_and_come_back(cell: str, tmp_path: Path) -> None:
    notebook = read(write_notebook(tmp_path / "train.ipynb", "a = 1", cell, "b = 2"))
    (first, hidden, last) = notebook.cells
    assert (bool(first.magic), bool(hidden.magic), bool(last.magic)) == (False, True, False)
    without = ast.unparse(ast.parse(hidden.python))
    expected = MAGICS[cell] if cell[0] != "%" or cell[1] == "%" else f"pass\n{MAGICS[cell]}"
    assert without == expected
    assert hidden.python.count("\n") == cell.count("\n")
    written = json.loads(notebook.edited(notebook.python.replace("b = 2", "b = 3")))
    assert "".join(written["cells"][1]["source"]) == cell
    edited = json.loads(notebook.edited(notebook.python.replace("x = 1", "x = 7")))
    assert "".join(edited["cells"][1]["source"]) == cell.replace("x = 1", "x = 7")


def test_what_looks_like_a_magic_and_is_python_stays(tmp_path: Path) -> None:
    cell = 'text = """\n%matplotlib inline\n!ls\n"""\nrest = (7\n% 3)'
    (found,) = read(write_notebook(tmp_path / "train.ipynb", cell)).cells
    assert (found.python, found.magic) == (cell, "")


# What is refused


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{", "is no notebook: Expecting property name"),
        (b"\xff\xfe{", "is no notebook"),
        ("[]", "is no notebook of format 4"),
        ('{"cells": 3, "nbformat": 4}', "is no notebook of format 4"),
        (json.dumps({**document("a = 1"), "nbformat": 3}), "is no notebook of format 4"),
        (json.dumps(document(f"{MARKDOWN}text", "", "\n ")), "has no cell with code"),
        (json.dumps(document("x <- 1", language="R")), "is a notebook in R, not in Python"),
    ],
)
def test_what_is_no_notebook_of_pythons_is_refused(
    content: str | bytes, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.ipynb").write_bytes(
        content.encode() if isinstance(content, str) else content
    )
    with pytest.raises(UsageError, match=what):
        parse("train.ipynb")


def test_arguments_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "train.ipynb", "a = 1")
    assert parse("train.ipynb").is_notebook
    with pytest.raises(UsageError, match="takes no arguments"):
        parse("train.ipynb", ["--lr", "1"])


def test_a_magic_needs_ipython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "train.ipynb", "a = 1", "b = 2\n%matplotlib inline")
    found = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == "IPython" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(UsageError, match=r"Cell 2 of train\.ipynb has a magic") as caught:
        parse("train.ipynb")
    assert caught.value.where == "%matplotlib inline"
    write_notebook(tmp_path / "train.ipynb", "a = 1")
    assert parse("train.ipynb").is_notebook


# How they run


def run(path: Path, *cells: str, then: str = "") -> str:
    """Run a notebook of these cells from another directory; what it prints, or the last line of its traceback."""
    write_notebook(path, *cells)
    program = f"""
import sys, traceback
from repro_audit.trial.driver.cells import Kernel
kernel = Kernel({str(path)!r})
try:
    kernel.run_all()
    {then or "pass"}
except BaseException as error:
    traceback.print_exception(error, file=sys.stdout)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment(), "TMPDIR": str(path.parent)},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return ended.stdout.strip()


def test_cells_share_a_namespace_and_are_the_main_module(tmp_path: Path) -> None:
    cells = (
        "from __future__ import annotations\nimport os, sys",
        "def f(x: unknown): return x",
        "print(f(__name__), '__file__' in globals(), os.path.samefile(os.getcwd(), sys.path[0]))",
        "print(sys.modules['__main__'].f is f, os.getcwd())",
    )
    printed = run(tmp_path / "train.ipynb", *cells)
    assert printed.splitlines() == ["__main__ False True", f"True {tmp_path}"]


def test_a_second_run_finds_what_the_first_one_left(tmp_path: Path) -> None:
    cell = "count = globals().get('count', 0) + 1\nprint(count)"
    assert run(tmp_path / "train.ipynb", cell, then="kernel.run_all()").split() == ["1", "2"]


def test_a_cell_may_await(tmp_path: Path) -> None:
    cells = ("import asyncio", "x = await asyncio.sleep(0, 'slept')", "print(x)")
    assert run(tmp_path / "train.ipynb", *cells) == "slept"


def test_a_syntax_error_names_its_cell(tmp_path: Path) -> None:
    printed = run(tmp_path / "train.ipynb", "a = 1", "b = 2\nc = = 3")
    assert f'File "{tmp_path}/train.ipynb, cell 2", line 2' in printed
    assert "c = = 3" in printed


def test_a_traceback_shows_the_line(tmp_path: Path) -> None:
    printed = run(tmp_path / "train.ipynb", "a = 1", "b = 2\n1 / 0")
    assert 'train.ipynb", line 5, in <module>\n    1 / 0\n' in printed


@pytest.mark.audit
@needs_ipython
@pytest.mark.parametrize(
    "cell",
    [
        "\n%lsmagic\nfail()",
        "!true \\\n  1 \\\n  2\nfail()",
        "%%time\n\nx = 1\nfail()",
        "\n%%capture\nx = 1\nfail()",
        "x = 1\n%time fail()",
        "x = get_ipython()\nfail()",
        "if True:\n    !true\n    fail()",
    ],
)
def test_lines_stay_where_they_are_around_magics(cell: str, tmp_path: Path) -> None:
    """The place in the notebook that a program sees, and a probe, is the one that was written."""
    prepare = "import sys\ndef fail():\n    raise ValueError(sys._getframe(1).f_lineno)"
    printed = run(tmp_path / "train.ipynb", prepare, cell)
    line = 5 + next(n for n, text in enumerate(cell.split("\n"), 1) if "fail()" in text)
    assert printed.splitlines()[-1] == f"ValueError: {line}"
    assert f'train.ipynb", line {line}, in <module>' in printed


@needs_ipython
def test_ipython_leaves_nothing_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("IPYTHONDIR", raising=False)
    printed = run(tmp_path / "train.ipynb", "names = !echo a b", "display(names[0])")
    assert printed == "'a b'"
    assert not list(home.iterdir())


def test_only_files_called_so_are_read(tmp_path: Path) -> None:
    write_notebook(tmp_path / "notes.txt", "a = 1")
    assert notebooks.of_file(tmp_path / "notes.txt") is None
    write_notebook(tmp_path / "notes.ipynb", "a = 1")
    assert notebooks.of_file(tmp_path / "notes.ipynb") is not None
