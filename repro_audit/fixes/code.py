"""The program's source around the line that is to blame: what it calls, what its names stand for, and edits of it."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from repro_audit.notebook import Notebook

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef)
_SEED = "seed"
_SETS = ("set", "frozenset")
FIRST_SEED = "0"
"""What to seed with where the program has no seed of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Text that takes the place of other text, or of none; lines from 1, columns in bytes, as `ast` counts."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


@dataclass(frozen=True, kw_only=True)
class Code:
    """A file of the program's, and some lines of it."""

    file: str
    """Relative to the directory that the audit was started in."""
    text: str
    lines: tuple[int, ...]
    """Those that are to blame, the first first."""
    target: str = ""
    """The function that the audit calls, where it is one of this file."""
    is_script: bool = False
    """It runs as `__main__`."""
    notebook: Notebook | None = None
    """Where the file is one, whose cells the text is."""

    @cached_property
    def tree(self) -> ast.Module | None:
        """The file; None for what is no Python."""
        try:
            return ast.parse(self.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None

    @cached_property
    def _parents(self) -> dict[ast.AST, ast.AST]:
        return {
            child: node
            for node in ast.walk(self.tree or ast.Module(body=[], type_ignores=[]))
            for child in ast.iter_child_nodes(node)
        }

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """What a node is part of, the innermost first."""
        while node in self._parents:
            node = self._parents[node]
            yield node

    def at(self, line: int) -> list[ast.stmt]:
        """The innermost statement that a line is part of; several where semicolons part them."""
        found = [
            node
            for node in ast.walk(self.tree or ast.Module(body=[], type_ignores=[]))
            if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
        ]
        extents = {node: (node.lineno, -(node.end_lineno or 0)) for node in found}
        innermost = max(extents.values(), default=None)
        return [node for node in found if extents[node] == innermost]

    def calls(self, statement: ast.stmt) -> list[ast.Call]:
        """What a statement calls itself, in the order of the text; of a compound one, in its head."""
        found = [node for node in self.parts(statement) if isinstance(node, ast.Call)]
        return sorted(found, key=lambda node: (node.lineno, node.col_offset))

    def parts(self, statement: ast.stmt) -> Iterator[ast.AST]:
        """The expressions of a statement, without those of statements inside it."""
        todo: list[ast.AST] = [statement]
        while todo:
            node = todo.pop()
            yield node
            todo += [each for each in ast.iter_child_nodes(node) if not isinstance(each, ast.stmt)]

    def source(self, node: ast.AST) -> str:
        """The text of a node."""
        return ast.get_source_segment(self.text, node) or ""

    def dotted(self, node: ast.expr) -> str:
        """What is called, by its whole name: `numpy.random.rand` for `np.random.rand`; `.sample` of an object."""
        path: list[str] = []
        while isinstance(node, ast.Attribute):
            path.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return f".{path[0]}" if path else ""
        known = self.imported.get(node.id)
        if known is None and path:
            return f".{path[0]}"
        return ".".join((known or node.id, *reversed(path)))

    @cached_property
    def imported(self) -> dict[str, str]:
        """By name in this file: what it was imported as."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree or ast.Module(body=[], type_ignores=[])):
            if isinstance(node, ast.Import):
                for each in node.names:
                    found[each.asname or each.name.partition(".")[0]] = (
                        each.name if each.asname else each.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for each in node.names:
                    found[each.asname or each.name] = f"{node.module}.{each.name}"
        return found

    def function(self, node: ast.AST) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """The innermost function that a node is in."""
        return next((each for each in self.above(node) if isinstance(each, _SCOPES)), None)

    def seed(self, node: ast.AST) -> str:
        """A seed that can be named where a node stands; a number where there is none."""
        function = self.function(node)
        if function is not None:
            arguments = function.args
            names = [
                each.arg
                for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            ]
            if _SEED in names:
                return _SEED
            given = self._seeded_before(function, node)
            if given:
                return given
            if self._stored(function):
                return "self.seed"
        for each in self.tree.body if self.tree else ():
            if isinstance(each, ast.Assign) and each.lineno < getattr(node, "lineno", 0):
                for target in each.targets:
                    if isinstance(target, ast.Name) and target.id.lower() == _SEED:
                        return target.id
        return FIRST_SEED

    def _seeded_before(self, function: ast.AST, node: ast.AST) -> str:
        """What the function has seeded a generator with before."""
        for each in ast.walk(function):
            if (
                isinstance(each, ast.Call)
                and each.lineno < getattr(node, "lineno", 0)
                and self.dotted(each.func).rpartition(".")[2]
                in {"manual_seed", _SEED, "seed_everything", "set_seed"}
                and len(each.args) == 1
                and isinstance(each.args[0], (ast.Name, ast.Attribute, ast.Constant))
            ):
                return self.source(each.args[0])
        return ""

    def _stored(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        """Whether the class that a method belongs to keeps `self.seed`."""
        owner = self._parents.get(function)
        if not isinstance(owner, ast.ClassDef) or function.name == "__init__":
            return False
        return any(
            isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and each.attr == _SEED
            and isinstance(each.value, ast.Name)
            and each.value.id == "self"
            for each in ast.walk(owner)
        )

    def is_set(self, node: ast.expr) -> bool:
        """Whether an expression is a set, as far as this file tells."""
        if isinstance(node, (ast.Set, ast.SetComp)):
            return True
        if isinstance(node, ast.Call):
            name = self.dotted(node.func)
            return name in _SETS or (
                name in {".union", ".intersection", ".difference", ".copy"}
                and isinstance(node.func, ast.Attribute)
                and self.is_set(node.func.value)
            )
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd, ast.Sub)):
            return self.is_set(node.left) or self.is_set(node.right)
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._assigned_a_set(node)
        return False

    def _assigned_a_set(self, node: ast.expr) -> bool:
        """Whether a name was given a set before the line where it is used, by the last line that gave it anything."""
        name = ast.dump(node)
        for part in ("Load", "Store"):
            name = name.replace(f"ctx={part}()", "ctx=")
        values: list[tuple[int, ast.expr]] = []
        for each in ast.walk(self.tree or ast.Module(body=[], type_ignores=[])):
            if not isinstance(each, (ast.Assign, ast.AnnAssign)):
                continue
            value = each.value
            targets = each.targets if isinstance(each, ast.Assign) else [each.target]
            for target in targets:
                if (
                    ast.dump(target).replace("ctx=Store()", "ctx=").replace("ctx=Load()", "ctx=")
                    == name
                ):
                    inside = self.function(each) is self.function(node) or isinstance(
                        node, ast.Attribute
                    )
                    if value is not None and (inside or self.function(each) is None):
                        values.append((each.lineno, value))
        earlier = [
            value
            for line, value in sorted(values, key=lambda pair: pair[0])
            if isinstance(node, ast.Attribute) or line <= node.lineno
        ]
        return (
            bool(earlier)
            and not isinstance(earlier[-1], (ast.Name, ast.Attribute))
            and self.is_set(earlier[-1])
        )


def replaced(code: Code, edits: Iterable[Edit]) -> str | None:
    """The file with edits made; None where they get into each other's way, or what comes out is no Python."""
    starts = [0]
    for line in code.text.split("\n"):
        starts.append(starts[-1] + len(line.encode()) + 1)
    data = code.text.encode()
    last = len(data) + 1
    places = [
        (
            starts[edit.start[0] - 1] + edit.start[1],
            starts[edit.end[0] - 1] + edit.end[1],
            edit.text,
        )
        for edit in dict.fromkeys(edits)
    ]
    for start, end, text in sorted(places, reverse=True):
        if end > last:
            return None
        data, last = data[:start] + text.encode() + data[end:], start
    result = data.decode()
    try:
        ast.parse(result)
    except (SyntaxError, ValueError):
        return None
    return result if result != code.text else None


def diff(code: Code, text: str) -> str:
    """The edits, as `diff -U0` would show them; of a notebook, cell by cell."""
    parts = [(code.file, code.text, text)]
    if code.notebook is not None:
        parts = [
            (f"{code.file}, cell {cell.number}", before, after)
            for cell, before, after in code.notebook.changes(text)
        ]
    return "\n".join(
        line
        for name, before, after in parts
        for line in difflib.unified_diff(
            before.split("\n"), after.split("\n"), name, name, n=0, lineterm=""
        )
    )
