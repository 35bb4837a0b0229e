"""What a longer trial may come to: files that the program's text says it writes and reads, and no trial came to write.

Text is only read, never run. A call counts where the function under audit can reach it by name, and a path is known by
its value where that is written down, else by the words that stand for it.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from repro_audit.notebook import place

_SAVES = {
    **{f"torch.{name}": 1 for name in ("save", "jit.save")},
    **{f"numpy.{name}": 0 for name in ("save", "savez", "savez_compressed", "savetxt")},
    **{f"safetensors.{library}.save_file": 1 for library in ("torch", "numpy")},
    "joblib.dump": 1,
}
"""Functions that write a file, and which argument is its path; likewise those that follow."""
_LOADS = {
    **{f"torch.{name}": 0 for name in ("load", "jit.load")},
    **{f"numpy.{name}": 0 for name in ("load", "loadtxt", "genfromtxt", "memmap", "fromfile")},
    **{f"safetensors.{library}.load_file": 0 for library in ("torch", "numpy")},
    **{f"pandas.read_{kind}": 0 for kind in ("csv", "json", "parquet", "pickle", "feather")},
    "joblib.load": 0,
}
_CHECKS = {f"os.path.{name}": 0 for name in ("exists", "isfile", "isdir", "getsize", "getmtime")}
_SEARCHES = {"os.listdir", "os.scandir", "os.walk", "glob.glob", "glob.iglob"}
_OPENS = {"open", "io.open", "gzip.open", "bz2.open", "lzma.open"}
_SAVING_METHODS = {"write_text", "write_bytes"}
_LOADING_METHODS = {"read_text", "read_bytes"}
_CHECKING_METHODS = {"exists", "is_file", "is_dir"}
_SEARCHING_METHODS = {"iterdir", "glob", "rglob"}
_TABLE_METHODS = {f"to_{kind}" for kind in ("csv", "json", "parquet", "pickle", "feather")}
_KEYWORDS = {"f", "file", "filename", "fname", "path", "path_or_buf"}
_MOST_HINTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """A call that writes a file, or reads it or looks for it."""

    file: str
    line: int
    does: str
    """`writes`, `reads`, `looks for` or `searches`."""
    path: str
    """The path itself where it is known, else the words that stand for it."""
    known: bool

    @property
    def name(self) -> str:
        """The path, in quotes where it is an expression."""
        return self.path if self.known else f"`{self.path}`"


def unreached(
    sources: Mapping[str, str],
    function: str,
    *,
    written: Mapping[str, bool],
    opened: Collection[tuple[str, int]],
    root: Path | None = None,
) -> tuple[str, ...]:
    """Say of each file that is written and read by lines of the program, and that no trial came to write, where.

    Args:
        sources: the text of the program's files, by their names.
        function: the one under audit.
        written: files that a trial wrote, and whether it was seen at which line.
        opened: places in the program at which it opened a file to write.
        root: where the files are; None for the working directory.
    """
    uses = list(_uses(sources, function))
    unseen = not all(written.values())
    hints: dict[str, str] = {}
    for use in uses:
        if use.does != "writes" or (use.file, use.line) in opened:
            continue
        # What C++ code wrote, as `torch.save` does, may have been written here.
        if unseen if not use.known else any(name.endswith(use.path) for name in written):
            continue
        reader = _reader(use, uses)
        if reader is not None:
            there = place(reader.file, reader.line, root)
            same = f"which {there} {reader.does}"
            other = f"and {there} {reader.does} {reader.name}, perhaps the same"
            how = same if reader.path == use.path else other
            hints.setdefault(
                use.path, f"{place(use.file, use.line, root)} may write {use.name}, {how}"
            )
    return tuple(hints.values())[:_MOST_HINTS]


def _reader(write: _Use, uses: Sequence[_Use]) -> _Use | None:
    """The line that most likely reads what another one writes, in a later run; None where none seems to."""
    loads = [use for use in uses if use.does == "reads" and use.line != write.line]
    looks = [use for use in uses if use.does == "looks for"]
    same = [use for use in (*loads, *looks) if use.path == write.path]
    if same:
        return same[0]
    # By another name: only a program that looks whether something is there is likely to go on with it.
    if not looks and not any(use.does == "searches" for use in uses):
        return None
    other = [use for use in (*loads, *looks) if not (use.known and write.known)]
    return other[0] if other else None


# Reading the text


def _uses(sources: Mapping[str, str], function: str) -> Iterator[_Use]:
    trees = {file: _parsed(text) for file, text in sources.items()}
    units = [unit for file, tree in trees.items() for unit in _units(file, tree)]
    for unit in _reachable(units, function):
        reading = _Reading(unit.file, trees[unit.file])
        for node in unit.nodes:
            for call in ast.walk(node):
                if isinstance(call, ast.Call):
                    use = reading.use(call)
                    if use is not None:
                        yield use


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):  # not what ran
        return ast.Module(body=[], type_ignores=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """What runs together: a function, a class with its methods, or what a module does when it is imported."""

    file: str
    name: str
    """Empty for a module's own code."""
    nodes: tuple[ast.AST, ...]

    def mentions(self) -> set[str]:
        """The names that stand in it."""
        found = set()
        for node in self.nodes:
            for each in ast.walk(node):
                if isinstance(each, ast.Name):
                    found.add(each.id)
                elif isinstance(each, ast.Attribute):
                    found.add(each.attr)
        return found


def _units(file: str, tree: ast.Module) -> Iterator[_Unit]:
    own: list[ast.AST] = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield _Unit(file=file, name=node.name, nodes=(node,))
        elif not _is_main_guard(node):
            own.append(node)
    yield _Unit(file=file, name="", nodes=tuple(own))


def _is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def _reachable(units: Sequence[_Unit], function: str) -> list[_Unit]:
    """The modules' own code, the function, and what is named in these, and so on."""
    names = {"", function.partition(".")[0]}
    found: list[_Unit] = []
    while True:
        new = [unit for unit in units if unit not in found and unit.name in names]
        if not new:
            return found
        found += new
        names.update(*(unit.mentions() for unit in new))


class _Reading:
    """One file's text: what its names stand for."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self._file = file
        self._modules = dict(_imports(tree))
        self._constants: dict[str, str] = {}
        for node in tree.body:
            if isinstance(node, ast.Assign):
                value = self._constant(node.value)
                for target in node.targets:
                    if isinstance(target, ast.Name) and value is not None:
                        self._constants[target.id] = value

    def use(self, call: ast.Call) -> _Use | None:
        """What a call does with a file; None where it does nothing with one."""
        name = self._dotted(call.func)
        for does, functions in (("writes", _SAVES), ("reads", _LOADS), ("looks for", _CHECKS)):
            if name in functions:
                return self._of(call, does, _argument(call, functions[name]))
        if name in _SEARCHES:
            return self._of(call, "searches", call.func)
        if name in _OPENS:
            return self._of(call, _mode_does(call, 1), _argument(call, 0))
        return self._of_method(call)

    def _of_method(self, call: ast.Call) -> _Use | None:
        if not isinstance(call.func, ast.Attribute):
            return None
        name, owner = call.func.attr, call.func.value
        if name in _TABLE_METHODS:
            return self._of(call, "writes", _argument(call, 0))
        if name == "open" and not self._dotted(call.func).startswith(tuple(self._modules)):
            return self._of(call, _mode_does(call, 0), owner)
        for does, methods in (
            ("writes", _SAVING_METHODS),
            ("reads", _LOADING_METHODS),
            ("looks for", _CHECKING_METHODS),
            ("searches", _SEARCHING_METHODS),
        ):
            if name in methods:
                return self._of(call, does, owner)
        return None

    def _of(self, call: ast.Call, does: str, path: ast.expr | None) -> _Use | None:
        if path is None:
            return None
        value = self._constant(path)
        words = ast.unparse(path) if value is None else value
        return _Use(
            file=self._file, line=call.lineno, does=does, path=words, known=value is not None
        )

    def _constant(self, node: ast.expr) -> str | None:
        """A path that is written down: a string, a name for one, or `Path` of these."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.Name):
            return self._constants.get(node.id)
        if isinstance(node, ast.Call) and self._dotted(node.func).endswith("Path") and node.args:
            parts = [self._constant(argument) for argument in node.args]
            return None if None in parts else "/".join(filter(None, parts))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            sides = self._constant(node.left), self._constant(node.right)
            return None if None in sides else "/".join(filter(None, sides))
        return None

    def _dotted(self, node: ast.expr) -> str:
        """`torch.save`, by whatever name the file has imported it."""
        if isinstance(node, ast.Name):
            return self._modules.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self._dotted(node.value)}.{node.attr}"
        return ""


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    (alias.asname, alias.name)
                    if alias.asname
                    else (alias.name.partition(".")[0],) * 2
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _argument(call: ast.Call, place: int) -> ast.expr | None:
    if place < len(call.args):
        return call.args[place]
    return next((each.value for each in call.keywords if each.arg in _KEYWORDS), None)


def _mode_does(call: ast.Call, place: int) -> str:
    """What an `open` is for."""
    given = [each.value for each in call.keywords if each.arg == "mode"]
    given += call.args[place : place + 1]
    mode = given[0].value if given and isinstance(given[0], ast.Constant) else "r"
    return "writes" if set(str(mode)) & set("wax+") else "reads"
