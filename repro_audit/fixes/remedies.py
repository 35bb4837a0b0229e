"""The kinds of edits that a source's table names, each for some calls: what to write depends on what was called.

A call is named in full (`numpy.random.rand`, however the file imports it), or by its last part with a dot before it
(`.iterdir`), for methods.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from repro_audit.fixes.code import Code, Edit

_ORDERLESS = {"sorted", "sum", "len", "min", "max", "set", "frozenset", "any", "all"}
_ITERATING = {"list", "tuple", "enumerate", "iter", "zip", "map", "filter", ".join", "reversed"}


class Remedy(Protocol):
    """A way to rewrite the line that is to blame."""

    @property
    def summary(self) -> str:
        """What the edit does, in a sentence; `{call}` stands for what was called."""
        ...

    def edits(self, code: Code, statement: ast.stmt) -> Iterator[tuple[str, Edit]]:
        """The edits, each with the call that it is of; none where the remedy does not fit."""
        ...


def whole(node: ast.expr, text: str) -> Edit:
    """Put a text in the place of an expression."""
    return Edit(
        start=(node.lineno, node.col_offset),
        end=(node.end_lineno or 0, node.end_col_offset or 0),
        text=text,
    )


def called(
    code: Code, statement: ast.stmt, calls: tuple[str, ...]
) -> Iterator[tuple[str, ast.Call]]:
    """The calls of a statement that are among some."""
    for call in code.calls(statement):
        name = code.dotted(call.func)
        if name in calls or f".{name.rpartition('.')[2]}" in calls:
            yield code.source(call.func), call


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """Sort what a call gives."""

    calls: tuple[str, ...]
    key: str = ""
    """Of what has no order of its own."""
    summary: str

    def edits(self, code: Code, statement: ast.stmt) -> Iterator[tuple[str, Edit]]:
        """Put `sorted` around it, unless whoever takes it cares for no order."""
        key = f", key={self.key}" if self.key else ""
        for name, call in called(code, statement, self.calls):
            if not _is_orderless(code, call):
                yield name, whole(call, f"sorted({code.source(call)}{key})")


def _is_orderless(code: Code, node: ast.AST) -> bool:
    """Whether what takes an expression gives the same for any order of it."""
    outer = next(code.above(node), None)
    return isinstance(outer, ast.Call) and code.dotted(outer.func) in _ORDERLESS


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOrder:
    """Where a set is iterated: sort it, or keep its items in the order in which they came."""

    template: str
    """`{0}` is the set."""
    of_items: bool = False
    """`{0}` is what the set is made of, so only where it is made at this place."""
    summary: str

    def edits(self, code: Code, statement: ast.stmt) -> Iterator[tuple[str, Edit]]:
        """Rewrite what is iterated."""
        seen = []
        for node in code.parts(statement):
            for iterated in _iterated(code, node):
                if iterated in seen or not code.is_set(iterated):
                    continue
                seen.append(iterated)
                inner = _items(code, iterated) if self.of_items else code.source(iterated)
                if not inner:
                    continue
                text = self.template.replace("{0}", inner)
                yield code.source(iterated), whole(iterated, text)


def _items(code: Code, node: ast.expr) -> str:
    """What a set is made of, as an argument; empty where it is made elsewhere."""
    if isinstance(node, ast.Call) and code.dotted(node.func) in {"set", "frozenset"}:
        return code.source(node.args[0]) if len(node.args) == 1 else ""
    inside = code.source(node)[1:-1].strip()
    if isinstance(node, ast.SetComp):
        return inside
    return f"[{inside}]" if isinstance(node, ast.Set) else ""


def _iterated(code: Code, node: ast.AST) -> Iterator[ast.expr]:
    """What a node goes through one by one."""
    if isinstance(node, (ast.For, ast.AsyncFor)):
        yield node.iter
    elif isinstance(node, (ast.ListComp, ast.DictComp, ast.GeneratorExp)):
        if not _is_orderless(code, node):
            yield from (each.iter for each in node.generators)
    elif isinstance(node, ast.Starred):
        yield node.value
    elif isinstance(node, ast.Call) and not _is_orderless(code, node):
        name = code.dotted(node.func)
        if name in _ITERATING or f".{name.rpartition('.')[2]}" in _ITERATING:
            yield from node.args


@dataclass(frozen=True, slots=True, kw_only=True)
class Instead:
    """Write something else in place of a call."""

    calls: tuple[str, ...]
    template: str
    """`{0}` is the first argument, `{call}` what is called, `{owner}` what it is a method of, `{seed}` a seed."""
    imports: str = ""
    """A module that the template needs."""
    arguments: int | None = 1
    """Of calls with so many; None for any number."""
    ordered: bool = False
    """Only where the first argument is a list, as far as the file tells."""
    within: tuple[str, ...] = ()
    """Only where the value goes to a call or a name with one of these in it: then all that goes there is replaced."""
    summary: str

    def edits(self, code: Code, statement: ast.stmt) -> Iterator[tuple[str, Edit]]:
        """Replace the call, and import what that takes."""
        for name, call in called(code, statement, self.calls):
            if self.arguments is not None and (len(call.args) != self.arguments or call.keywords):
                continue
            if self.ordered and not _is_list(code, call.args[0]):
                continue
            place: ast.expr | None = _receiver(code, call, self.within) if self.within else call
            if place is None:
                continue
            owner = code.source(call.func.value) if isinstance(call.func, ast.Attribute) else ""
            text = self.template.replace("{seed}", code.seed(call)).replace("{owner}", owner)
            text = text.replace("{call}", name)
            if call.args:
                text = text.replace("{0}", code.source(call.args[0]))
            yield name, whole(place, text)
            if self.imports and self.imports not in code.imported:
                yield name, imported(code, self.imports)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """Call another function, with the same arguments."""

    calls: tuple[str, ...]
    old: str
    """Within the last part of its name. Likewise the next one."""
    new: str
    summary: str

    def edits(self, code: Code, statement: ast.stmt) -> Iterator[tuple[str, Edit]]:
        """Rewrite the name, where it is an attribute: one that was imported may mean something else."""
        for name, call in called(code, statement, self.calls):
            if isinstance(call.func, ast.Attribute):
                end = (call.func.end_lineno or 0, call.func.end_col_offset or 0)
                start = (end[0], end[1] - len(call.func.attr))
                text = call.func.attr.replace(self.old, self.new)
                yield name, Edit(start=start, end=end, text=text)


def _receiver(code: Code, node: ast.expr, words: tuple[str, ...]) -> ast.expr | None:
    """The whole expression that is given to a call or a name with one of some words in it."""
    inner: ast.expr = node
    for outer in code.above(node):
        target = ""
        if isinstance(outer, ast.Call) and inner is not outer.func:
            target = code.source(outer.func)
        elif isinstance(outer, ast.keyword):
            target = outer.arg or ""
        elif isinstance(outer, ast.Assign):
            target = " ".join(map(code.source, outer.targets))
        elif isinstance(outer, ast.AnnAssign):
            target = code.source(outer.target)
        if any(word in target.lower() for word in words):
            return inner
        if isinstance(outer, ast.stmt):
            return None
        if isinstance(outer, ast.expr):
            inner = outer
    return None


def _is_list(code: Code, node: ast.expr) -> bool:
    """Whether an expression is a list, as far as this file tells."""
    if isinstance(node, (ast.List, ast.ListComp)):
        return True
    if not isinstance(node, ast.Name):
        return False
    scope = code.function(node) or code.tree
    values = [
        each.value
        for each in ast.walk(scope or node)
        if isinstance(each, ast.Assign) and any(code.source(t) == node.id for t in each.targets)
    ]
    return bool(values) and all(isinstance(value, (ast.List, ast.ListComp)) for value in values)


def imported(code: Code, module: str) -> Edit:
    """Import a module behind the file's first imports."""
    body = code.tree.body if code.tree else []
    heads = [each for each in body if isinstance(each, (ast.Import, ast.ImportFrom))]
    plain = [
        each
        for each in heads
        if not (isinstance(each, ast.ImportFrom) and each.module == "__future__")
    ]
    if plain:
        place = (plain[0].lineno, plain[0].col_offset)
        return Edit(start=place, end=place, text=f"import {module}\n")
    if heads:
        place = (heads[-1].end_lineno or 0, heads[-1].end_col_offset or 0)
        return Edit(start=place, end=place, text=f"\nimport {module}")
    is_documented = code.tree is not None and ast.get_docstring(code.tree) is not None
    place = (body[1].lineno, 0) if is_documented and len(body) > 1 else (1, 0)
    return Edit(start=place, end=place, text=f"import {module}\n")
