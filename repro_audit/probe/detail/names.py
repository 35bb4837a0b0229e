"""Which values a line of code names, from its bytecode; and looking them up without running any of the program's code.

A name is a variable and the attributes after it: `x`, `self.scale`. It is looked up as far as attributes are stored
ones of the program's own objects, so that no property and no method is called.
"""

from __future__ import annotations

import dis
import random
import re
import sys
from dataclasses import dataclass, field
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch

from repro_audit.probe.detail.statements import extents
from repro_audit.probe.digest.generators import KINDS
from repro_audit.probe.files import is_users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import CodeType

T = TypeVar("T")

LOCAL, GLOBAL, NAME = range(3)
"""Where a variable is kept: the function's own and its closure's; the module's; either, at the top of a module."""
MISSING: Any = object()
"""Stands for a variable or an attribute that has no value."""

_MOST_NAMES = 32
_ATTRIBUTES = frozenset(
    ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR", "LOAD_SUPER_ATTR")
)
_NAMES = frozenset(("LOAD_NAME", "STORE_NAME", "DELETE_NAME", "LOAD_CLASSDEREF"))
_TRANSPARENT = frozenset(("COPY", "DUP_TOP", "CACHE", "PUSH_NULL"))
_ITEMS = frozenset(("STORE_SUBSCR", "STORE_SLICE", "DELETE_SUBSCR"))
_ITERATES = frozenset(("GET_ITER", "UNPACK_SEQUENCE", "UNPACK_EX", "LIST_EXTEND", "FOR_ITER"))
_OPENS = frozenset(
    ("SETUP_WITH", "SETUP_ASYNC_WITH", "BEFORE_WITH", "BEFORE_ASYNC_WITH", "LOAD_SPECIAL")
)
_SEEDING = ("seed", "setstate", "set_state", "rng_state", "fork_rng")
_OPAQUE = ("__compiled_fn", "torch_dynamo_resume_in_")
"""How `torch.compile` names what it calls in the code that it puts in a function's place."""
_CLASS_DATA = (
    *(bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset),
    *(torch.Tensor, np.ndarray, np.generic, *KINDS),
)


class Chain(NamedTuple):
    """A variable, and the attributes that follow it."""

    where: int
    path: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Plan:
    """What is to be looked at where one line runs."""

    chains: tuple[Chain, ...]
    stores: frozenset[Chain]
    """Those that it assigns to; all of them where it assigns to an item, whose owner the bytecode does not tell."""
    seeds: bool
    """A name on it speaks of seeding, or of setting a generator's state."""
    iterates: bool
    builds_set: bool
    adds_to_set: bool
    """It is, or has in it, the making of a set one by one."""
    meta: int = -1
    """Id of its text in the trace; negative until it ran."""
    searches: int = 1
    """How many more times the objects that it names are searched for generators."""


@dataclass(slots=True)
class _Draft:
    """A plan in the making."""

    chains: dict[Chain, None] = field(default_factory=dict)
    stores: set[Chain] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    operations: set[str] = field(default_factory=set)

    def plan(self) -> Plan:
        chains = tuple(self.chains)[:_MOST_NAMES]
        return Plan(
            chains=chains,
            stores=frozenset(self.stores if _ITEMS.isdisjoint(self.operations) else chains),
            seeds="state" in self.words
            or any(part in word.lower() for word in self.words for part in _SEEDING),
            iterates=not _ITERATES.isdisjoint(self.operations),
            builds_set="BUILD_SET" in self.operations or "SET_ADD" in self.operations,
            adds_to_set="SET_ADD" in self.operations,
        )


def is_opaque(code: CodeType) -> bool:
    """Whether `torch.compile` wrote this code: its variables are no longer the program's."""
    return code.co_name.startswith(_OPAQUE) or any(
        name.startswith(_OPAQUE) for name in code.co_names
    )


class _Reader:
    """Reads a code object's instructions into drafts of plans."""

    def __init__(self) -> None:
        self.drafts: dict[int, _Draft] = {}
        self._chain: tuple[_Draft, int, list[str]] | None = None
        """A variable whose attributes may follow."""
        self._is_stored = False

    def read(self, line: int, instruction: dis.Instruction) -> None:
        """Take in one instruction of a line."""
        name, value = instruction.opname, instruction.argval
        draft = self.drafts.setdefault(line, _Draft())
        draft.operations.add(name)
        where = _where(name)
        if where is not None:
            for number, variable in enumerate(value if isinstance(value, tuple) else (value,)):
                self.close()
                draft.words.add(variable)
                if not variable.startswith((".", "__")):
                    self._chain = (draft, where, [variable])
                    self._is_stored = _stores(name, number)
        elif name in _ATTRIBUTES:
            draft.words.add(value)
            if self._chain is not None:
                self._chain[2].append(value)
                self._is_stored = _stores(name, 0)
        elif name not in _TRANSPARENT:
            self.close()

    def close(self) -> None:
        """End the chain: what follows are no attributes of it."""
        if self._chain is not None:
            draft, where, path = self._chain
            found = Chain(where, tuple(path))
            draft.chains.setdefault(found)
            if self._is_stored:
                draft.stores.add(found)
        self._chain, self._is_stored = None, False


def plans_of(code: CodeType) -> dict[int, Plan]:
    """The plan for every line of a code object."""
    reader = _Reader()
    for line, instruction in _instructions(code):
        reader.read(line, instruction)
    reader.close()
    drafts = reader.drafts
    for first, last in extents(code.co_filename).items():
        # A statement ends on its first line, though what it names stands on others.
        if first in drafts:
            for line in range(first + 1, last + 1):
                drafts[first].chains |= drafts[line].chains if line in drafts else {}
    return {line: draft.plan() for line, draft in drafts.items()}


def leaving(code: CodeType) -> frozenset[int]:
    """Offsets of the instructions that leave a `with` block: they count as of the line that entered it."""
    parts: list[tuple[int, list[dis.Instruction]]] = []
    for line, instruction in _instructions(code):
        if not parts or parts[-1][0] != line:
            parts.append((line, []))
        parts[-1][1].append(instruction)
    entered: set[int] = set()
    found: set[int] = set()
    for line, instructions in parts:
        if any(each.opname in _OPENS for each in instructions):
            entered.add(line)
        elif line in entered:
            found.update(each.offset for each in instructions)
    return frozenset(found)


def _stores(operation: str, number: int) -> bool:
    """Whether an operation assigns to the variable that it has at a place; 3.13 does two at once."""
    parts = re.findall("STORE|DELETE|LOAD", operation)
    return number < len(parts) and parts[number] != "LOAD"


def _instructions(code: CodeType) -> Iterator[tuple[int, dis.Instruction]]:
    """Each instruction with its line; the attributes that `dis` has for it differ from version to version."""
    spans = [(end, line) for _, end, line in code.co_lines()]
    at = 0
    for instruction in dis.get_instructions(code):
        while at < len(spans) - 1 and instruction.offset >= spans[at][0]:
            at += 1
        line = spans[at][1] if spans else None
        if line is not None:
            yield line, instruction


def _where(operation: str) -> int | None:
    if operation in _NAMES or "FROM_DICT_OR" in operation:
        return NAME
    if "_FAST" in operation or "DEREF" in operation or operation == "LOAD_CLOSURE":
        return LOCAL
    return GLOBAL if operation.endswith("_GLOBAL") else None


# Looking up


def per_type(function: Callable[[type], T]) -> Callable[[type], T]:
    """Remember what a function says of each type; by identity, as a metaclass may define equality."""
    known: dict[int, tuple[type, T]] = {}

    def remembered(kind: type) -> T:
        found = known.get(id(kind))
        if found is None:
            found = known[id(kind)] = (kind, function(kind))
        return found[1]

    return remembered


def look_up(chain: Chain, variables: Mapping[str, Any], module: dict[str, Any]) -> tuple[Any, int]:
    """The value that a chain leads to, as far as it can be followed, and how many of its parts that took."""
    where, path = chain
    value = MISSING if where == GLOBAL else variables.get(path[0], MISSING)
    if where != LOCAL and value is MISSING:
        value = module.get(path[0], MISSING)
    depth = 1
    while depth < len(path) and value is not MISSING:
        inner = attribute(value, path[depth])
        if inner is MISSING:
            break
        value = inner
        depth += 1
    return value, depth


def attribute(value: Any, name: str) -> Any:
    """A stored attribute of an object, class or module of the program's own, or of a module of torch's."""
    kind = type(value)
    if kind is ModuleType:
        file = vars(value).get("__file__")
        if isinstance(file, str) and is_users(file):
            return vars(value).get(name, MISSING)
        return MISSING
    if issubclass(kind, type):
        return _of_class(value, name, None) if _is_users_class(value) else MISSING
    if not _is_holder(kind):
        return MISSING
    stored = stored_in(value)
    found = stored.get(name, MISSING)
    if found is MISSING and issubclass(kind, torch.nn.Module):
        for group in ("_parameters", "_buffers", "_modules"):
            found = (stored.get(group) or {}).get(name, MISSING)
            if found is not MISSING:
                return found
    return found if found is not MISSING else _of_class(kind, name, value)


@per_type
def _is_watchable(kind: type) -> bool:
    return issubclass(kind, KINDS) and not issubclass(kind, random.SystemRandom)


def is_watchable(value: object) -> bool:
    """Whether a value is a generator with a state, without asking the value."""
    return _is_watchable(type(value))


def stored_in(value: Any) -> dict[str, Any]:
    """What an object stores in its dictionary; nothing where its class has a say in that."""
    if not _has_plain_dict(type(value)):
        return {}
    try:
        stored = object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return {}
    return stored if type(stored) is dict else {}


def _of_class(kind: type, name: str, value: Any) -> Any:
    """A slot's value, or data at the top level of a class."""
    for base in kind.__mro__:
        found = base.__dict__.get(name, MISSING)
        if found is MISSING:
            continue
        if type(found) is MemberDescriptorType and value is not None:
            try:
                return found.__get__(value)
            except AttributeError:
                return MISSING
        return found if issubclass(type(found), _CLASS_DATA) else MISSING
    return MISSING


@per_type
def _has_plain_dict(kind: type) -> bool:
    return all(
        type(base.__dict__.get("__dict__")) in {GetSetDescriptorType, type(None)}
        for base in kind.__mro__
    )


@per_type
def _is_holder(kind: type) -> bool:
    return issubclass(kind, torch.nn.Module) or _is_users_class(kind)


@per_type
def _is_users_class(kind: type) -> bool:
    """Whether a class is the program's own: by its functions, since its module may be found under no name."""
    for item in vars(kind).values():
        if type(item) is FunctionType and is_users(item.__code__.co_filename):
            return True
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return isinstance(file, str) and is_users(file)
