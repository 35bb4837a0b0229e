"""What of a script could be audited, and what to write where its `main` can not be called as it stands."""

from __future__ import annotations

import ast
import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST = ("main", "build")
_MOST = 3


def advice(tree: ast.Module, place: str) -> str:
    """What to give instead of a script: its functions, `main` first, or what to write; empty where there is neither."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    public = {node.name: node for node in functions if node.name[0] != "_"}
    main = public.get("main")
    if main is not None and (written := how_to_call(tree, main, place)):
        return written
    able = [name for name, node in public.items() if set(required(node)) <= {"seed"}]
    close = difflib.get_close_matches("build", able, n=_MOST, cutoff=0.5)
    ranked = dict.fromkeys([*(name for name in _FIRST if name in able), *close]) or able
    return " or ".join(f"{place}:{name}" for name in [*ranked][:_MOST])


def how_to_call(tree: ast.Module, function: ast.FunctionDef, place: str) -> str:
    """What to write for a function that needs what a command line gives; empty where it seems to need nothing."""
    hydra = next(filter(None, map(_hydra, function.decorator_list)), None)
    if hydra is not None:
        return _function(place, _with_hydra(function.name, hydra))
    if missing := [name for name in required(function) if name != "seed"]:
        arguments = ", ".join(f"{name}=..." for name in missing)
        return _function(place, [f"return {function.name}({arguments})"])
    options = [*dict.fromkeys(_required_options(tree))]
    return with_arguments(function.name, place, options) if options else ""


def is_hydras(function: ast.FunctionDef) -> bool:
    """Whether hydra calls it."""
    return any(_hydra(decorator) is not None for decorator in function.decorator_list)


def with_arguments(function: str, place: str = "", options: list[str] | None = None) -> str:
    """What to write where a function reads the command line."""
    given = ", ".join(
        f'"{option}", "..."' if option.startswith("-") else f'"{option}"'
        for option in options or ["--option"]
    )
    name = place or "train.py"
    lines = ["import sys", f'sys.argv = ["{name}", {given}]', f"return {function}()"]
    return _function(place, lines)


def required(function: ast.FunctionDef) -> list[str]:
    """The parameters that must be given."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    named = [
        each.arg
        for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
        if default is None
    ]
    return [each.arg for each in positional[: len(positional) - len(given.defaults)]] + named


def _function(place: str, lines: list[str]) -> str:
    check = f"{place}:audited" if place else "that"
    body = "".join(f"\n    {line}" for line in lines)
    return f"add a function that needs nothing, and check {check}:\n\ndef audited():{body}"


def _hydra(decorator: ast.expr) -> dict[str, str] | None:
    """The arguments of `@hydra.main(...)`; None of another decorator."""
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "hydra.main":
        return None
    placed = dict(zip(("config_path", "config_name"), decorator.args, strict=False))
    named = {each.arg: each.value for each in decorator.keywords if each.arg}
    return {"": "", **{name: ast.unparse(value) for name, value in {**placed, **named}.items()}}


def _with_hydra(name: str, given: dict[str, str]) -> list[str]:
    path, config = given.get("config_path", "None"), given.get("config_name", "None")
    return [
        f"with hydra.initialize(config_path={path}, version_base=None):",
        f"    return {name}.__wrapped__(hydra.compose({config}))",
    ]


def _required_options(tree: ast.Module) -> Iterator[str]:
    """Of each argument that argparse insists on: its name, or what stands in its place."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        names = [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
        if node.func.attr == "add_argument" and names:
            told = {each.arg: ast.unparse(each.value) for each in node.keywords}
            optional = "default" in told or told.get("nargs") in {"'?'", "'*'"}
            placed = not names[0].startswith("-")
            if told.get("required") == "True" or (placed and not optional):
                yield names[0].upper() if placed else names[-1]
