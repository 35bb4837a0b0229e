"""PyTorch's internals behind one door: each private name that is used, what it is for, and what is lost without it.

No other package names one (`tests/test_torch_internals.py`). A name is looked up when it is asked for, since a program
sets variables before its own import of torch; who runs often keeps what `get` returned. Where PyTorch lacks a name, or
it takes other arguments, the audit ends and says which. A source that declares the name is not exercised instead, and
where only the closer look needs it, the finding says why there is none.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from repro_audit.errors import MissingInternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EVERYTHING = "the whole audit"
DETAIL = "the closer look at the op, line or draw that is to blame"
_NEXT_STEP = "use a version of PyTorch that README.md lists as tested, or a later repro-audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Internal:
    """A private name of PyTorch's."""

    place: str
    """Its module, a colon, and the dotted way to it from there."""
    purpose: str
    """What it serves to do."""
    lost: str = EVERYTHING
    """What there is not without it."""
    parameters: tuple[str, ...] = ()
    """The arguments that are given to it, or taken from a call of it, by name."""
    in_objects: bool = False
    """The objects of a class hold it, which only the code of the class shows."""
    optional: bool = False
    """Some versions or builds that are supported have none, and nothing is lost."""

    @property
    def module(self) -> str:
        """The module that it is found from."""
        return self.place.partition(":")[0]

    @property
    def name(self) -> str:
        """Its own name."""
        return self.place.rpartition(":")[2].rpartition(".")[2]

    def get(self) -> Any:
        """What it stands for now.

        Raises:
            MissingInternalError: PyTorch has no such name, or it takes other arguments.
        """
        owner, name = self.spot()
        return getattr(owner, name)

    def spot(self) -> tuple[Any, str]:
        """The object that holds it, and its name there, to put something in its place."""
        lack = self.lack()
        if lack:
            raise MissingInternalError(
                lack,
                why=f"it serves to {self.purpose}; without it, {self.lost} is lost",
                next_step=_NEXT_STEP,
            )
        return self._owner(), self.name

    def put(self, value: Any) -> None:
        """Put something in its place, where `get` or `spot` has found it before."""
        setattr(self._owner(), self.name, value)

    def of(self, holder: Any) -> Any:
        """Its value in an object."""
        return getattr(holder, self.name)

    def is_loaded(self) -> bool:
        """Whether its module is imported, where that is late and takes long."""
        return self.module in sys.modules

    @cache  # noqa: B019 - they are constants
    def lack(self) -> str:
        """What of it the installed PyTorch lacks, as a sentence without its full stop; empty where nothing."""
        try:
            owner = self._owner()
        except (ImportError, AttributeError):
            return self._has_none()
        if not hasattr(owner, self.name):
            held = self.in_objects and self.name in _names_in(owner)
            return "" if held else self._has_none()
        try:
            known = inspect.signature(getattr(owner, self.name)).parameters
        except (TypeError, ValueError):  # of C, which does not say, or nothing to be called
            return ""
        if any(each.kind in {each.VAR_POSITIONAL, each.VAR_KEYWORD} for each in known.values()):
            return ""
        gone = [name for name in self.parameters if name not in known]
        return (
            f"{self._named()} of PyTorch {_version()} takes no {' or '.join(gone)}" if gone else ""
        )

    def _owner(self) -> Any:
        path = self.place.partition(":")[2].rpartition(".")[0]
        module = import_module(self.module)
        return attrgetter(path)(module) if path else module

    def _named(self) -> str:
        return self.place.replace(":", ".")

    def _has_none(self) -> str:
        return f"PyTorch {_version()} has no {self._named()}"


def _version() -> str:
    return str(sys.modules["torch"].__version__)


def _names_in(kind: type) -> set[str]:
    """What the code of a class and of its bases names, be it as an attribute or as a string."""
    names: set[str] = set()
    for value in (value for base in kind.__mro__ for value in vars(base).values()):
        is_property = isinstance(value, property)
        for function in (value.fget, value.fset) if is_property else (value,):
            code = getattr(
                inspect.unwrap(function) if callable(function) else None, "__code__", None
            )
            if code is not None:
                names.update(code.co_names)
                names.update(each for each in code.co_consts if isinstance(each, str))
    return names


def require(*needed: Internal) -> None:
    """See that all are there.

    Raises:
        MissingInternalError: one is not.
    """
    for internal in needed:
        internal.spot()


def lacking(needed: Iterable[Internal]) -> str:
    """What of these the installed PyTorch lacks, and what for; empty where nothing."""
    for internal in needed:
        if lack := internal.lack():
            return f"{lack}, which serves to {internal.purpose}"
    return ""


_signature = lru_cache(maxsize=64)(inspect.signature)
"""Kept, since calls are bound for each batch."""


def bind(function: Callable[..., Any], *args: Any, **kwargs: Any) -> inspect.BoundArguments:
    """The arguments of a call by their names, in `arguments`; `args` and `kwargs` give them back."""
    return _signature(function).bind(*args, **kwargs)
