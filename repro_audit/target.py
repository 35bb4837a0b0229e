"""What is audited: the target on the command line, read without running any of it.

A target names a function (`train.py:build`, `pkg.mod:build`), a program as Python runs it (`train.py ARGS`,
`-m pkg.train ARGS`), a notebook, or a command that starts Python (`-- torchrun train.py`). Whatever can be known to be
wrong from the text alone is said here, with the names that come closest, before anything is imported.
"""

from __future__ import annotations

import ast
import difflib
import importlib.machinery
import importlib.util
import os
import pkgutil
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

from repro_audit import notebook
from repro_audit.errors import UsageError

Mode = Literal["build", "script", "command"]
FORMS = (
    "train.py ARGS or -m pkg.train ARGS to run it as Python does, train.py:build to call a function, or -- COMMAND for "
    "what starts Python, such as torchrun"
)
MODULE, COMMAND = "-m", "--"
_SEARCHED_FILES, _SEARCHED_DEPTH = 2_000, 2
_NAMES_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target that is well formed; its file and function exist as far as their text shows."""

    spec: str
    """As it was given, without the arguments."""
    function: str = ""
    """The name in the module, with dots for an attribute of a class; empty for a program that runs as `__main__`."""
    path: str | None = None
    """The file, relative to the working directory or absolute; None for a module."""
    module: str | None = None
    """The module's dotted name; None for a file."""
    mode: Mode = "build"
    argv: tuple[str, ...] = ()
    """What the program finds in `sys.argv[1:]`; of a command all its words."""
    launched: tuple[str, ...] = ()
    """The words of the command that starts it, in processes of its own; empty where the trial's process runs it."""

    @property
    def is_notebook(self) -> bool:
        """Whether it is a notebook, whose cells run one after the other."""
        return self.mode == "script" and (self.path or "").endswith(notebook.SUFFIX)


def is_call(spec: str) -> bool:
    """Whether a target names a function, which is called, rather than a program, which is run."""
    return ":" in spec and not Path(spec).is_file()


def parse(spec: str, argv: Sequence[str] = ()) -> Target:
    """Read a target as the command line gives it.

    Raises:
        UsageError: it is malformed, or names a file, module or function that does not exist.
    """
    if spec == COMMAND:
        return _command(argv)
    if spec == MODULE:
        return _module_script(argv)
    if not is_call(spec):
        return _script(spec, argv)
    place, _, function = spec.rpartition(":")
    if argv:
        raise UsageError(
            f"{spec} takes no arguments: its function is called, no script is run.",
            where=" ".join(argv),
            next_step=f"leave them out, or have it run as a script: repro-audit check {place} {' '.join(argv)}",
        )
    if not place or not all(part.isidentifier() for part in function.split(".")):
        raise UsageError(f"{spec!r} names no function.", next_step=f"give {FORMS}")
    if _looks_like_path(place):
        path = _existing_file(place, function)
        _check_function(path, place, function)
        return Target(spec=spec, function=function, path=str(path))
    source = _locate_module(place, function)
    if source is not None:
        _check_function(source, place, function)
    return Target(spec=spec, function=function, module=place)


def nearest(name: str, candidates: Iterable[str]) -> list[str]:
    """The candidates that look most like `name`, the closest first."""
    return difflib.get_close_matches(name, sorted(set(candidates)), n=3, cutoff=0.5)


def suggestion(name: str, candidates: Iterable[str], kind: str) -> str:
    """A `next_step`: the nearest candidates, or else what there is; empty where there is nothing."""
    known = sorted(set(candidates))
    close = nearest(name, known)
    if close:
        return f"did you mean {' or '.join(close)}?"
    shown = known[:_NAMES_SHOWN]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return f"{kind} there: {', '.join(shown)}{more}" if known else ""


# Programs


def _script(spec: str, argv: Sequence[str]) -> Target:
    """A file that runs as `python FILE ARGS` runs it."""
    path = Path(spec)
    if spec and path.is_dir():
        near = [f"{file}" for file in sorted(path.glob("*.py"))]
        raise UsageError(f"{spec} is a directory.", next_step=suggestion(spec, near, "files"))
    if not path.is_file():
        _refuse_missing(spec, argv)
    if path.suffix == notebook.SUFFIX:
        return _notebook(spec, argv)
    with path.open("rb") as file:
        first = file.readline(256)
    if first.startswith(b"#!") and b"python" not in first:
        raise UsageError(
            f"{spec} is no Python program.",
            where=first.decode(errors="replace").strip(),
            next_step=f"have it run as a command: {_as_command(spec, argv)}",
        )
    tree = _parse(path)
    if tree is not None and _only_defines(tree, "build"):
        raise UsageError(
            f"{spec} defines build(), which nothing calls where the file runs as a script.",
            next_step=f"repro-audit check {spec}:build",
        )
    return Target(spec=spec, path=spec, mode="script", argv=tuple(argv))


def _notebook(spec: str, argv: Sequence[str]) -> Target:
    """A notebook, whose cells run in their order."""
    if argv:
        raise UsageError(
            f"{spec} takes no arguments: a notebook has no command line.", where=" ".join(argv)
        )
    magic = next((cell for cell in notebook.read(Path(spec)).cells if cell.magic), None)
    if magic is not None and importlib.util.find_spec("IPython") is None:
        raise UsageError(
            f"Cell {magic.number} of {spec} has a magic, which only IPython understands.",
            where=magic.magic,
            next_step="pip install ipython, or take such lines out",
        )
    return Target(spec=spec, path=spec, mode="script")


def _only_defines(tree: ast.Module, function: str) -> bool:
    """Whether a file defines a function, and no code outside of its functions and classes names any of them."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = {node.name for node in tree.body if isinstance(node, definitions)}
    own = [node for node in tree.body if not isinstance(node, definitions)]
    named = {each.id for node in own for each in ast.walk(node) if isinstance(each, ast.Name)}
    return function in defined and not named & defined


def _as_command(spec: str, argv: Sequence[str]) -> str:
    return f"repro-audit check {COMMAND} {shlex.join([spec, *argv])}"


def _refuse_missing(spec: str, argv: Sequence[str]) -> NoReturn:
    """A spec that is no file: a module's name, perhaps, a command's, or a file's that is misspelt."""
    if not spec or spec.startswith("-"):
        raise UsageError("No target is named.", where=spec, next_step=f"give {FORMS}")
    if Path(f"{spec}.py").is_file():
        step = f"did you mean {spec}.py?"
    elif argv and shutil.which(spec):
        step = f"to audit a command, put {COMMAND} before it: {_as_command(spec, argv)}"
    elif not _looks_like_path(spec) and _is_module(spec):
        step = f"did you mean -m {spec}?"
    else:
        step = suggestion(spec, map(str, _python_files(Path(spec))), "files") or f"give {FORMS}"
    raise UsageError(f"There is no file {spec}.", next_step=step)


def _is_module(name: str) -> bool:
    try:
        _locate_module(name, "")
    except UsageError:
        return False
    return True


def _module_script(words: Sequence[str]) -> Target:
    """A module that runs as `python -m MODULE ARGS` runs it."""
    if not words:
        raise UsageError("-m needs the name of a module.", next_step="give -m pkg.train ARGS")
    name, *argv = words
    if name.endswith(".py"):
        module = name.removesuffix(".py").replace("/", ".").strip(".")
        raise UsageError(
            f"-m takes a module's name, not a file's: {name}",
            next_step=f"did you mean {name} without -m, or -m {module}?",
        )
    package = Path(*name.split("."))
    if not (package / "__main__.py").is_file():
        if (package / "__init__.py").is_file():
            inside = [f"-m {name}.{file.stem}" for file in sorted(package.glob("[!_]*.py"))]
            raise UsageError(
                f"The package {name} has no __main__.py, so Python can not run it.",
                next_step=suggestion(f"-m {name}", inside, "modules"),
            )
        _locate_module(name, "")
    return Target(spec=f"{MODULE} {name}", module=name, mode="script", argv=tuple(argv))


# Commands


def as_command(script: Target) -> Target:
    """A script as Python is started for it: what it trains in other processes is seen then."""
    words = script.spec.split(" ", 1) if script.path is None else [script.spec]
    return replace(script, launched=(sys.executable, *words, *script.argv))


def _command(words: Sequence[str]) -> Target:
    """A command that starts Python, sooner or later."""
    if not words:
        raise UsageError("No command follows the --.", next_step="give -- torchrun train.py ARGS")
    name = words[0]
    if shutil.which(name) is None:
        raise UsageError(f"There is no command {name}.", next_step=_next_step(name, words[1:]))
    return Target(spec=COMMAND, mode="command", argv=tuple(words), launched=tuple(words))


def _next_step(name: str, rest: Sequence[str]) -> str:
    """What could be meant by a word that is no command."""
    if name.endswith(".py"):
        return f"did you mean -- python {name}, or {name} without the -- before it?"
    if re.match(r"\w+=", name) and rest:
        return f"variables are a shell's: -- env {name} {' '.join(rest)}"
    places = map(Path, os.get_exec_path())
    there = {file.name for place in places if place.is_dir() for file in place.iterdir()}
    near = nearest(name, there)
    return f"did you mean {' or '.join(near)}?" if near else "is it installed, and on the PATH?"


# Files


def _looks_like_path(place: str) -> bool:
    separators = [os.sep] + ([os.altsep] if os.altsep else [])
    return (
        place.endswith(".py")
        or any(separator in place for separator in separators)
        or Path(place).is_file()
    )


def _existing_file(place: str, function: str) -> Path:
    path = Path(place)
    if path.is_dir():
        inside = path / "__init__.py"
        if inside.is_file():
            return inside
        near = [f"{file}:{function}" for file in sorted(path.glob("*.py"))]
        raise UsageError(f"{place} is a directory.", next_step=suggestion(place, near, "files"))
    if path.suffix == notebook.SUFFIX:
        raise UsageError(
            f"{place} is a notebook, whose functions have no names here.",
            next_step=f"have all of it run: repro-audit check {place}",
        )
    if not path.is_file():
        near = [str(file) for file in _python_files(path)]
        raise UsageError(f"There is no file {place}.", next_step=suggestion(place, near, "files"))
    return path


def _python_files(missing: Path) -> Iterator[Path]:
    """Files that could be meant: beside the missing one, or else at most two directories down from here."""
    if missing.parent.is_dir() and (beside := sorted(missing.parent.glob("*.py"))):
        yield from beside
        return
    seen = 0
    for directory, below, files in os.walk("."):
        here = Path(directory)
        is_deep = len(here.parts) >= _SEARCHED_DEPTH
        below[:] = [] if is_deep else sorted(name for name in below if name[0] not in "._")
        seen += len(files)
        if seen > _SEARCHED_FILES:
            return
        yield from (here / name for name in sorted(files) if name.endswith(".py"))


# Modules


def _locate_module(name: str, function: str) -> Path | None:
    """The module's file, found without importing its packages; None where only an import can tell."""
    if Path(f"{name}.py").is_file() and "." in name:
        raise UsageError(
            f"{name!r} reads as a module in a package.",
            next_step=f"did you mean {name}.py:{function}?",
        )
    parts = name.split(".")
    if not all(parts):
        raise UsageError(f"{name!r} is no module.", next_step=f"give {FORMS}")
    path: Sequence[str] | None = [os.getcwd(), *sys.path]  # noqa: PTH109 - what Python itself puts there
    origin = None
    for end in range(1, len(parts) + 1):
        known = ".".join(parts[:end])
        spec = importlib.machinery.PathFinder.find_spec(known, path)
        if spec is None:
            if end == 1 and _has_other_finder(known):
                return None
            around = ".".join(parts[: end - 1])
            siblings = [
                f"{around}.{module.name}".lstrip(".") for module in _modules(path, top=end == 1)
            ]
            raise UsageError(
                f"There is no module {known}.", next_step=suggestion(known, siblings, "modules")
            )
        origin, path = spec.origin, spec.submodule_search_locations
        if path is None and end < len(parts):
            raise UsageError(
                f"{known} is a module, not a package: it holds no {parts[end]}.", where=str(origin)
            )
    if origin is None and path is not None:
        inside = [f"{name}.{module.name}:{function}" for module in _modules(path, top=False)]
        raise UsageError(
            f"{name} is a directory without code of its own.",
            next_step=suggestion(f"{name}:{function}", inside, "modules"),
        )
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _has_other_finder(name: str) -> bool:
    """Built in, or found by an import hook such as an editable install's."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return name in sys.modules


def _modules(path: Sequence[str] | None, *, top: bool) -> Iterable[pkgutil.ModuleInfo]:
    """What could be meant: of the top level, only what lies in the working directory."""
    return pkgutil.iter_modules([os.getcwd()] if top else path)  # noqa: PTH109 - as above


# Functions


def _check_function(path: Path, place: str, function: str) -> None:
    """Refuse a name that the text of the module does not bind; where the text can not tell, the import will."""
    tree = _parse(path)
    if tree is None:
        return
    bound = _bound_names(tree)
    first, _, rest = function.partition(".")
    if bound is None or first in bound:
        _check_hydra(tree, place, function)
        return
    defined = _functions(tree)
    names = defined if defined and not rest else sorted(bound)
    public = [name for name in names if name[0] != "_"] or names
    near = nearest(first, defined) or nearest(first, bound)
    step = f"did you mean {' or '.join(f'{place}:{name}' for name in near)}?" if near else ""
    raise UsageError(
        f"{place} defines no {function}.",
        where=str(path),
        next_step=step or suggestion(first, public, "functions"),
    )


def _check_hydra(tree: ast.Module, place: str, function: str) -> None:
    """Refuse a function that hydra calls with what it makes of a command line."""
    for node in tree.body:
        if (
            isinstance(node, ast.FunctionDef)
            and node.name == function
            and any(ast.unparse(each).startswith("hydra.main(") for each in node.decorator_list)
        ):
            raise UsageError(
                f"{function} is called by hydra, with what that makes of a command line.",
                where=f"{place}:{function}",
                next_step=f"have it run as a script: repro-audit check {place} OVERRIDES",
            )


def _parse(path: Path) -> ast.Module | None:
    """The file's syntax tree, or None where it has none: then the import shows the error as Python words it."""
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError, OSError):
        return None


def _functions(tree: ast.Module) -> list[str]:
    return [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def _bound_names(tree: ast.Module) -> set[str] | None:
    """Every name that the module's text binds at its top level, or anywhere: too many do no harm.

    Returns:
        None where names may come from elsewhere (`import *`, a module `__getattr__`, `globals()`, `exec`).
    """
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                names.add(name)
            case ast.Name(id="globals" | "exec" | "vars" | "setattr"):
                return None
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update((alias.asname or alias.name).partition(".")[0] for alias in aliases)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.add(name)
    return None if names & {"*", "__getattr__"} else names
