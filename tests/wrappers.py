"""Finds the public functions that the audit puts something in the place of, and calls each as users may.

Run as `python -m tests.wrappers DIRECTORY`: it prints, as JSON, what was replaced under each setting, and how every
form of a call in `tests.forms` ended before and after.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro_audit.source import Levels
from repro_audit.sources import built_in, environment, process_identity
from repro_audit.storage.facts import Facts
from tests.forms import FORMS
from tests.sourcing import context, in_force

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from repro_audit.source import Source

_OURS = ("repro_audit", "tests", "pytest", "hypothesis", "coverage")
_BY_KIND = {
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """What was found under one setting."""

    functions: dict[str, list[str]] = field(default_factory=dict)
    """By dotted name: the parameters that the original takes by keyword, and what stands in for it does not."""
    ended: dict[str, dict[str, str]] = field(default_factory=dict)
    """By dotted name and form of the call: the type of what came back, or was raised."""


class Names:
    """Every callable that a loaded module, or one of its classes, has under a public name."""

    def __init__(self) -> None:
        self._owners: list[tuple[str, Any, dict[str, Any]]] = []
        self._seen: set[int] = set()
        # Outer packages first: a class goes by the shortest of its names.
        for place in sorted(sys.modules, key=lambda name: (name.count("."), name)):
            if _is_public(place) and not place.startswith(_OURS):
                self._add(place, sys.modules[place])
                for name, value in list(vars(sys.modules[place]).items()):
                    if _is_public(name) and isinstance(value, type) and id(value) not in self._seen:
                        self._seen.add(id(value))
                        home = value.__module__ if _is_public(value.__module__) else place
                        self._add(f"{home}.{value.__name__}", value)

    def _add(self, name: str, owner: Any) -> None:
        self._owners.append((name, owner, dict(vars(owner))))

    def replaced(self) -> dict[str, tuple[Any, Any]]:
        """By dotted name, what was there when this was made, and what stands there now."""
        return {
            f"{name}.{each}": (before.get(each), value)
            for name, owner, before in self._owners
            for each, value in list(vars(owner).items())
            if before.get(each) is not value and _is_public(each) and _is_function(value)
        }


def _is_function(value: Any) -> bool:
    return (callable(value) and not isinstance(value, type)) or isinstance(
        value, (classmethod, staticmethod)
    )


def _is_public(name: str) -> bool:
    return not any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def _refuses(original: Any, new: Any) -> list[str]:
    """What the original takes by keyword, as far as it tells, and what stands in for it does not."""
    try:
        wanted = inspect.signature(original).parameters.values()
        taken = inspect.signature(new, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return []
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken):
        return []
    names = {each.name for each in taken if each.kind in _BY_KIND}
    return sorted(
        each.name for each in wanted if each.kind in _BY_KIND and each.name not in {*names, "self"}
    )


def _ended(form: Callable[[], Any]) -> str:
    try:
        return type(form()).__name__
    except Exception as error:  # what is compared
        return f"raises {type(error).__name__}"


def settings(directory: Path) -> Iterator[tuple[str, AbstractContextManager[Any]]]:
    """Every level of every source, and all else that replaces functions in a trial."""
    for source in built_in().values():
        for level in levels(source):
            made = directory / f"{source.id}-{level.replace(os.sep, '-')}"
            made.mkdir()
            trial = context(made, source, level, elsewhere=made)
            yield f"{source.id}: {level}", in_force(source, level, trial)
    yield "overlay", _overlay()
    yield "probe", _probe(directory / "plain", detailed=False)
    yield "detailed probe", _probe(directory / "detailed", detailed=True)


def levels(source: Source) -> list[str]:
    """All levels that the source has for a program that does everything."""
    loader = {"num_workers": 2, "batch_size": 4, "persistent": False, "dataset": "Data"}
    line = [["train.py", 1]]
    survey: dict[str, Any] = dict.fromkeys(built_in(), line)
    survey |= {
        "checkpoint-resume": {"procedure": False, "steps": 4},
        "cpu-isa": {
            "machine": "x86_64",
            "capability": "AVX512",
            "libraries": ["ATen", "oneDNN", "MKL"],
            "capped": False,
            "numpy": True,
            "compiled": False,
        },
        "environment": {"asked": dict.fromkeys(environment.LEVELS, line), "movable": True},
        "outside-input": {"told": line, "changed": [{"whole": True}]},
        "process-identity": dict.fromkeys(process_identity.ASKS, line),
        "lstm-dropout": {"LSTM": False},
        "pickled-embedding": {"names": ["embedding.weight"], "pickles": []},
        "worker-start-method": ["fork"],
    }
    facts = Facts(loaders=(loader,), survey=survey, written=("a.pt",), accepts_seed=True, threads=3)
    found = source.levels(facts)
    if not isinstance(found, Levels):
        return [source.pinned]
    removal = (found.removal,) if found.removal else ()
    return list(
        dict.fromkeys(
            (source.pinned, *found.varied, *chain.from_iterable(found.parts.values()), *removal)
        )
    )


@contextmanager
def _overlay() -> Iterator[None]:
    from repro_audit.isolation.renaming import allow_directory_renames

    allow_directory_renames()
    yield


@contextmanager
def _probe(directory: Path, *, detailed: bool) -> Iterator[None]:
    from repro_audit.probe.detail.ops import Ops
    from repro_audit.probe.detail.session import Detailed
    from tests.probing import watching

    (directory / "trial" / "detail").mkdir(parents=True)
    with ExitStack() as stack:
        details = None
        if detailed:
            details = Detailed(directory / "trial" / "detail", ops=Ops, from_step=0, to_step=9)
            stack.enter_context(details)
        stack.enter_context(watching(directory, detailed=details))
        yield


def _in_child(work: Callable[[], Replaced]) -> Replaced:
    """Do something that can't be undone in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            text = json.dumps(asdict(work()))
        except BaseException as error:
            text = json.dumps({"functions": {}, "ended": {"": {"": repr(error)}}})
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:
            pipe.write(text)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:  # it crashed
        return Replaced(ended={"": {"": "crashes"}})
    return Replaced(**json.loads(text))


def look(directory: Path) -> dict[str, Replaced]:
    """What is replaced under each setting, and how calls end; under `""`, with nothing replaced."""
    names = Names()

    def plainly() -> Replaced:
        return Replaced(
            ended={
                name: {label: _ended(form) for label, form in forms.items()}
                for name, forms in FORMS.items()
            }
        )

    def under(setting: AbstractContextManager[Any]) -> Replaced:
        with setting:
            new = names.replaced()
            ended = {
                name: {label: _ended(form) for label, form in FORMS.get(name, {}).items()}
                for name in new
            }
        refused = {name: _refuses(*pair) for name, pair in new.items()}
        return Replaced(functions=refused, ended=ended)

    found = {"": _in_child(plainly)}
    for name, setting in settings(directory):
        found[name] = _in_child(partial(under, setting))
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    everything = {name: asdict(found) for name, found in look(Path(sys.argv[1])).items()}
    sys.stdout.write(json.dumps(everything))
