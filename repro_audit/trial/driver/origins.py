"""Where the program sets up what a checkpoint lost: the line, and how the program itself would name it.

A static look at the sources of the classes and functions that hold it. Nothing of the program's is called.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from torch import nn

from repro_audit.probe.digest.stored import is_generator
from repro_audit.probe.files import is_users, program_modules
from repro_audit.storage.facts import Json

_SETTING_UP = ("__init__", "__post_init__", "setup", "build", "reset")
"""Methods that are searched before the others of a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """One thing that was lost."""

    expression: str
    """What it is called where the training runs: `model.net[0].calls`."""
    holder: str = ""
    """The class of the module that holds it as an attribute; empty where none does."""
    attribute: str = ""
    """What it is called there."""
    generator: str = ""
    """The library of a generator: `torch`, `numpy`, `numpy-legacy`, `python`."""
    file: str = ""
    """Empty where the line was not found; absolute."""
    line: int = 0
    function: str | None = None
    code: str = ""


def find(names: Iterable[str], values: Mapping[str, Any]) -> dict[str, Json]:
    """Look each of `names` up; `values` are all that the walk over the training's state found, by name."""
    return {name: asdict(_origin(name, values)) for name in names}


def _origin(name: str, values: Mapping[str, Any]) -> Origin:
    chain = list(_chain(name, values))
    holder = next((owner for owner, _ in reversed(chain) if isinstance(owner, nn.Module)), None)
    attribute = chain[-1][1] if chain and chain[-1][0] is holder else ""
    place = next(filter(None, (_place(owner, key) for owner, key in reversed(chain))), None)
    if place is None:
        place = _code_of(values.get(name)) or next(
            filter(None, (_set_from_outside(key) for _, key in reversed(chain))), None
        )
    file, line, function = place or ("", 0, None)
    return Origin(
        expression=_expression(name, chain),
        holder=type(holder).__name__ if attribute else "",
        attribute=attribute,
        generator=_library(values.get(name)),
        file=file,
        line=line,
        function=function,
        code=linecache.getline(file, line).strip() if file else "",
    )


def _chain(name: str, values: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """The objects that lead to a value, outermost first, each with what it calls the next one."""
    modules: Mapping[str, Any] = sys.modules
    start = next((root for root in _prefixes(name) if root in values or root in modules), None)
    while start is not None and start != name:
        owner = values[start] if start in values else modules[start]
        rest = name[len(start) + 1 :]
        inner = next((each for each in _prefixes(rest) if f"{start}.{each}" in values), rest)
        yield owner, inner
        start = f"{start}.{inner}"


def _prefixes(name: str) -> list[str]:
    """`a`, `a.b` and `a.b.c` of `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _expression(name: str, chain: list[tuple[Any, str]]) -> str:
    if not chain:
        return name
    expression = name[: -sum(len(key) + 1 for _, key in chain)]
    for owner, key in chain:
        if isinstance(owner, FunctionType) and key.isdecimal():
            expression += f".__defaults__[{key}]"
        elif isinstance(owner, FunctionType):
            expression = key  # a variable of the function that made this one
        elif isinstance(owner, dict) or not key.isidentifier():
            expression += f"[{key if key.isdecimal() else repr(key)}]"
        else:
            expression += f".{key}"
    return expression


def _library(value: Any) -> str:
    if not is_generator(value):
        return ""
    libraries = {
        "torch": "torch",
        "numpy": "numpy" if isinstance(value, np.random.Generator) else "numpy-legacy",
        "random": "python",
    }
    return libraries.get(type(value).__module__.partition(".")[0], "")


# The line

_Place = tuple[str, int, "str | None"]
"""File, line, and the name of the function around it."""


def made(classes: Collection[str]) -> _Place | None:
    """Where one of the program's modules first calls something by the name of one of these classes."""
    for _, file, _ in program_modules():
        for node in ast.walk(_parsed(file)):
            if isinstance(node, ast.Call):
                called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if called in classes:
                    return file, node.lineno, None
    return None


def _place(owner: Any, key: str) -> _Place | None:
    """Where the owner's own code sets up what it calls `key`."""
    if isinstance(owner, ModuleType):
        file = getattr(owner, "__file__", None)
        return _found(file, _assigned(_parsed(file).body, key), None) if file else None
    if isinstance(owner, FunctionType):
        return _variable(owner, key)
    for cls in type(owner).__mro__:
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        if file is None or not is_users(file):
            continue
        for node in ast.walk(_parsed(file)):
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                place = _of_class(file, node, key)
                if place is not None:
                    return place
    return None


def _of_class(file: str, cls: ast.ClassDef, key: str) -> _Place | None:
    methods = [node for node in cls.body if isinstance(node, ast.FunctionDef)]
    order = {name: number for number, name in enumerate(_SETTING_UP)}
    for method in sorted(methods, key=lambda each: order.get(each.name, len(order))):
        if method.name not in order:
            break
        line = _attribute(method, key)
        if line:
            return _found(file, line, method.name)
    line = _assigned(cls.body, key)
    if line:
        return _found(file, line, cls.name)
    for method in methods:
        line = _attribute(method, key)
        if line:
            return _found(file, line, method.name)
    return None


def _attribute(tree: ast.AST, key: str) -> int:
    """The first line that sets an attribute of this name, or registers a buffer of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == key:
            return node.lineno
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            given = node.args[1:2] if called == "setattr" else node.args[:1]
            by_name = [word.value for word in node.keywords if word.arg == "name"]
            if called in {"register_buffer", "setattr"} and any(
                isinstance(each, ast.Constant) and each.value == key for each in (*given, *by_name)
            ):
                return node.lineno
    return 0


def _assigned(body: Iterable[ast.stmt], key: str) -> int:
    """The first of some statements, functions left out, that assigns to a variable; its line."""
    waiting = list(body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [inner for target in targets for inner in ast.walk(target)]
            if any(isinstance(each, ast.Name) and each.id == key for each in names):
                return node.lineno
        waiting.extend(each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt))
    return 0


def _variable(function: FunctionType, key: str) -> _Place | None:
    """Where the function around another one sets up a variable of the inner one; a default is where that begins."""
    code = function.__code__
    if not is_users(code.co_filename):
        return None
    if key.isdecimal():
        return _found(code.co_filename, code.co_firstlineno, code.co_name)
    around = [
        node
        for node in ast.walk(_parsed(code.co_filename))
        if isinstance(node, ast.FunctionDef)
        and node.lineno < code.co_firstlineno <= (node.end_lineno or 0)
    ]
    for node in reversed(around):
        line = _assigned(node.body, key)
        if line:
            return _found(code.co_filename, line, node.name)
    return None


def _set_from_outside(key: str) -> _Place | None:
    """Where any of the program's modules sets an attribute of this name."""
    for _, file, _ in program_modules() if key.isidentifier() else ():
        line = _attribute(_parsed(file), key)
        if line:
            return _found(file, line, None)
    return None


def _code_of(value: Any) -> _Place | None:
    """Where the function of a generator begins."""
    if not inspect.isgenerator(value) or not is_users(value.gi_code.co_filename):
        return None
    return _found(value.gi_code.co_filename, value.gi_code.co_firstlineno, value.gi_code.co_name)


def _found(file: str, line: int, function: str | None) -> _Place | None:
    return (file, line, function) if line else None


@lru_cache(maxsize=64)
def _parsed(file: str) -> ast.Module:
    """A source file's syntax; of what is none, nothing."""
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])
