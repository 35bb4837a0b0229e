"""Importing the target, so that it finds its neighbours and its package, and DataLoader workers find it.

A worker started by spawn imports the target's module anew, by its name and from `sys.path`. So a file is imported under
a name by which the import system finds it, never from a path alone; where its own name won't do, a small module with
another name that runs the file is written to a temporary directory on `sys.path`.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from repro_audit.errors import TargetError
from repro_audit.target import suggestion
from repro_audit.trial.driver.cells import put_first
from repro_audit.trial.driver.script import Script

if TYPE_CHECKING:
    from types import ModuleType

    from repro_audit.target import Target

Build: TypeAlias = Callable[..., object]

ALIAS_PREFIX = "repro_audit_target_"
_ALIAS = '''\
"""Runs the file below under this name, by which workers find it."""

__file__ = {path!r}
exec(compile(__import__("pathlib").Path(__file__).read_bytes(), __file__, "exec"))
'''
_RELATIVE = re.compile(rb"\bfrom[\s\\]*\.")
"""Where there is none, no import is relative."""


def load(target: Target) -> Build:
    """Import the target's module and return its function; of a script return what runs it.

    What the module itself raises passes through.

    Raises:
        TargetError: the module has no such function, or its name is taken.
    """
    if target.mode == "script":
        return Script(target)
    if target.path is not None:
        path = Path(os.path.realpath(target.path))
        sys.argv = [str(path)]
        return _attribute(_import_file(path), target)
    name = str(target.module)
    put_first(os.getcwd())  # noqa: PTH109 - what Python itself puts there
    module = importlib.import_module(name)
    sys.argv = [getattr(module, "__file__", None) or name]
    return _attribute(module, target)


def _attribute(module: ModuleType, target: Target) -> Build:
    """The function by its name, which may lead through classes."""
    found: Any = module
    for name in target.function.split("."):
        if not hasattr(found, name):
            functions = [
                key for key, value in vars(found).items() if callable(value) and key[0] != "_"
            ]
            raise TargetError(
                f"{target.path or target.module} has no {target.function}.",
                where=target.spec,
                next_step=suggestion(name, functions, "functions"),
            )
        found = getattr(found, name)
    if not callable(found):
        raise TargetError(
            f"{target.function} is no function: it is of type {type(found).__name__}.",
            where=target.spec,
            next_step="name a function that returns what to train",
        )
    return found  # type: ignore[no-any-return]


# Files


def _import_file(path: Path) -> ModuleType:
    """Import a file under its name in its package, or under its own, or under an alias."""
    parts = _package_of(path)
    stem = path.stem if path.suffix == ".py" else path.name
    if not parts:
        put_first(str(path.parent))
        if path.suffix != ".py" or not _importable_as(stem, path):
            return _import_alias(stem, path)
        return importlib.import_module(stem)
    root = path.parents[len(parts)]
    put_first(str(root))
    # Run as a script, a file in a package would find its neighbours by their bare names. Last on the path, its
    # directory can't hide the standard library behind a neighbour that is called `types.py`.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    _check_package(parts[0], root)
    name = ".".join(parts if stem == "__init__" else (*parts, stem))
    return importlib.import_module(name)


def _package_of(path: Path) -> tuple[str, ...]:
    """The names of the packages that the file is in, the outermost first; empty for a file on its own."""
    parts: list[str] = []
    for directory in path.parents:
        if not (directory / "__init__.py").is_file() or not directory.name.isidentifier():
            break
        parts.insert(0, directory.name)
    levels = _relative_levels(path)
    if len(parts) >= levels:
        return tuple(parts)
    # Relative imports in directories without __init__.py, as `python -m dir.file` allows: the names count from the
    # working directory, as they do there, or else from as far up as the imports reach.
    here = Path(os.path.realpath(os.curdir))
    if path.is_relative_to(here) and len(path.relative_to(here).parts) > levels:
        return path.relative_to(here).parent.parts
    return tuple(directory.name for directory in reversed(path.parents[:levels]))


def _relative_levels(path: Path) -> int:
    """How many directories up the file's relative imports reach."""
    text = path.read_bytes()
    if not _RELATIVE.search(text):
        return 0
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return 0  # the import will say it better
    return max(
        (node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0
    )


def _check_package(name: str, root: Path) -> None:
    loaded = sys.modules.get(name)
    if loaded is None:
        return
    places = [getattr(loaded, "__file__", None) or "", *getattr(loaded, "__path__", ())]
    if not any(os.path.realpath(place).startswith(f"{root / name}{os.sep}") for place in places):
        origin = next(filter(None, places), "Python itself")
        if os.path.realpath(origin) != str(root / name):
            raise TargetError(
                f"The package {name} has the name of a module that is already loaded.",
                where=str(root / name),
                why=f"{name} comes from {origin}",
                next_step="give the package another name",
            )


def _importable_as(name: str, path: Path) -> bool:
    """Whether `import name` gives this file: not where the name is taken, or reads as a module in a package."""
    if "." in name or name in sys.builtin_module_names:
        return False
    loaded = sys.modules.get(name)
    if loaded is not None:
        origin = getattr(loaded, "__file__", None)
        return origin is not None and os.path.realpath(origin) == str(path)
    importlib.invalidate_caches()
    spec = importlib.machinery.PathFinder.find_spec(name)
    return (
        spec is not None and spec.origin is not None and os.path.realpath(spec.origin) == str(path)
    )


def _import_alias(stem: str, path: Path) -> ModuleType:
    name = ALIAS_PREFIX + re.sub(r"\W", "_", stem)
    # Not tempfile.mkdtemp, which draws from os.urandom.
    directory = Path(tempfile.gettempdir()) / f"repro-audit-modules-{os.getpid()}"
    directory.mkdir(exist_ok=True)
    (directory / f"{name}.py").write_text(_ALIAS.format(path=str(path)), encoding="utf-8")
    sys.path.append(str(directory))
    importlib.invalidate_caches()
    return importlib.import_module(name)
