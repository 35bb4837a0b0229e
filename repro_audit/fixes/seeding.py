"""Remedies that seed: by an argument, where an object is made, or where the program seeds others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from repro_audit.fixes.code import Code, Edit
from repro_audit.fixes.remedies import called, imported, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """Pass a seed, where none is passed."""

    calls: tuple[str, ...]
    keyword: str = ""
    """By name; empty for the first argument, of a call that has none."""
    once: bool = False
    """Only where the call does not seem to be repeated: all rounds would draw alike."""
    value: str = ""
    """What to pass, where that is no seed."""
    summary: str

    def edits(self, code: Code, statement: ast.stmt) -> Iterator[tuple[str, Edit]]:
        """Add the argument, or take the place of a None."""
        for name, call in called(code, statement, self.calls):
            if self.once and _may_repeat(code, call):
                continue
            seed = self.value or code.seed(call)
            if any(each.arg is None for each in call.keywords):
                continue
            given = next(
                (each for each in call.keywords if each.arg == (self.keyword or "seed")), None
            )
            if given is None and not self.keyword and call.args:
                first = call.args[0]
                given = ast.keyword(arg="", value=first) if _is_none(first) else None
                if given is None:
                    continue
            if given is not None:
                if _is_none(given.value):
                    yield name, whole(given.value, seed)
                continue
            yield name, self._added(call, seed)

    def _added(self, call: ast.Call, seed: str) -> Edit:
        text = f"{self.keyword}={seed}" if self.keyword else seed
        arguments = [*call.args, *(each.value for each in call.keywords)]
        if not arguments:
            place = (call.end_lineno or 0, (call.end_col_offset or 1) - 1)
            return Edit(start=place, end=place, text=text)
        last = max(arguments, key=lambda each: (each.end_lineno or 0, each.end_col_offset or 0))
        place = (last.end_lineno or 0, last.end_col_offset or 0)
        return Edit(start=place, end=place, text=f", {text}")


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedBeside:
    """Seed a library's generator where the program seeds another one, or where it starts."""

    function: str
    """`numpy.random.seed`."""
    summary: str

    def edits(self, code: Code, statement: ast.stmt) -> Iterator[tuple[str, Edit]]:
        """Insert a line."""
        module, _, name = self.function.rpartition(".")
        known = _name_of(code, module)
        beside = _seeding(code, self.function)
        if beside is not None:
            seeding, value = beside
            place = (seeding.end_lineno or 0, seeding.end_col_offset or 0)
            indent = " " * seeding.col_offset
            text = f"\n{indent}{known or module}.{name}({value})"
        else:
            first = _start(code)
            if first is None or statement is None:
                return
            place = (first.lineno, first.col_offset)
            text = f"{known or module}.{name}({code.seed(first)})\n{' ' * first.col_offset}"
        yield self.function, Edit(start=place, end=place, text=text)
        if not known:
            yield self.function, imported(code, module)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedOnce:
    """Seed an object where it is made, since the call that draws from it may be repeated."""

    calls: tuple[str, ...]
    template: str
    """`{owner}` is what is called, `{seed}` a seed."""
    owners: tuple[str, ...] = ()
    """Only of what has a name that ends so."""
    summary: str

    def edits(self, code: Code, statement: ast.stmt) -> Iterator[tuple[str, Edit]]:
        """Insert a line behind the one that makes it, or what it is part of."""
        for name, call in called(code, statement, self.calls):
            if not isinstance(call.func, ast.Attribute):
                continue
            owner = code.source(call.func.value)
            made = _made(code, call.func.value)
            if made is None or not owner.endswith(self.owners or ("",)):
                continue
            place = (made.end_lineno or 0, made.end_col_offset or 0)
            text = self.template.replace("{owner}", owner).replace("{seed}", code.seed(made))
            yield name, Edit(start=place, end=place, text=f"\n{' ' * made.col_offset}{text}")


def _made(code: Code, node: ast.expr) -> ast.stmt | None:
    """The statement that makes an object, or the one that it is an attribute of; None where the file does not tell."""
    function = code.function(node)
    while True:
        named = [
            each
            for each in ast.walk(code.tree or node)
            if isinstance(each, ast.Assign)
            and isinstance(each.value, ast.Call)
            and any(code.source(target) == code.source(node) for target in each.targets)
        ]
        near = [each for each in named if code.function(each) is function]
        found = [each for each in near if each.lineno < node.lineno] or (
            named if len(named) == 1 and not near else []
        )
        if found or not isinstance(node, ast.Attribute):
            return max(found, key=lambda each: each.lineno, default=None)
        node = node.value


_LOOPS = (
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


def _may_repeat(code: Code, call: ast.Call) -> bool:
    """Whether a method is called in a loop, or in another function than the one that makes its object."""
    function = code.function(call)
    for outer in code.above(call):
        if outer is function:
            break
        if isinstance(outer, _LOOPS):
            return True
    made = _made(code, call.func.value) if isinstance(call.func, ast.Attribute) else None
    return made is not None and code.function(made) is not function


def _name_of(code: Code, module: str) -> str:
    """How a file calls a module; empty where it has not imported it."""
    parent, _, last = module.rpartition(".")
    for name, known in code.imported.items():
        if known == module:
            return name
        if known == parent and parent:
            return f"{name}.{last}"
    return ""


_SEEDINGS = (
    "torch.manual_seed", "numpy.random.seed", "random.seed", "torch.cuda.manual_seed_all", "torch.cuda.manual_seed",
)  # fmt: skip


_NO_DOING = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _seeding(code: Code, but: str) -> tuple[ast.stmt, str] | None:
    """The first statement that seeds a generator, with the seed as it is written there."""
    for node in ast.walk(code.tree) if code.tree else ():
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
            continue
        call = node.value
        if (
            code.dotted(call.func) in _SEEDINGS
            and code.dotted(call.func) != but
            and len(call.args) == 1
        ):
            return node, code.source(call.args[0])
    return None


def _start(code: Code) -> ast.stmt | None:
    """The first statement that does something, of the function that the audit calls or of a script."""
    body = code.tree.body if code.tree else []
    if not code.is_script:
        called = (n for n in body if isinstance(n, ast.FunctionDef) and n.name == code.target)
        body = next((function.body for function in called), [])
    found = next(
        (each for each in body if not isinstance(each, _NO_DOING) and not _is_text(each)), None
    )
    if code.is_script and isinstance(found, ast.If) and "__name__" in ast.unparse(found.test):
        return found.body[0]
    return found or next(iter(body), None)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
