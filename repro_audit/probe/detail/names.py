"""Which values a line of code names, from its bytecode.

A name is a variable and the attributes after it: `x`, `self.scale`.
"""

from __future__ import annotations

import dis
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from types import CodeType
from typing import Any, NamedTuple, TypeAlias

from repro_audit.probe.detail.statements import extents
from repro_audit.probe.digest.stored import MISSING, attribute

LOCAL, GLOBAL, NAME = range(3)
"""Where a variable is kept: the function's own and its closure's; the module's; either, at the top of a module."""

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


Instructions: TypeAlias = "list[tuple[int, dis.Instruction]]"


def plans_of(filename: str, instructions: Instructions) -> dict[int, Plan]:
    """The plan for every line of a code object."""
    reader = _Reader()
    for line, instruction in instructions:
        reader.read(line, instruction)
    reader.close()
    drafts = reader.drafts
    for first, last in extents(filename).items():
        # A statement ends on its first line, though what it names stands on others.
        if first in drafts:
            for line in range(first + 1, last + 1):
                drafts[first].chains |= drafts[line].chains if line in drafts else {}
    return {line: draft.plan() for line, draft in drafts.items()}


def leaving(instructions: Instructions) -> frozenset[int]:
    """Offsets of the instructions that leave a `with` block: they count as of the line that entered it."""
    entered: set[int] = set()
    found: set[int] = set()
    for line, stretch in groupby(instructions, key=itemgetter(0)):
        part = [instruction for _, instruction in stretch]
        if any(each.opname in _OPENS for each in part):
            entered.add(line)
        elif line in entered:
            found.update(each.offset for each in part)
    return frozenset(found)


def _stores(operation: str, number: int) -> bool:
    """Whether an operation assigns to the variable that it has at a place; 3.13 does two at once."""
    parts = re.findall("STORE|DELETE|LOAD", operation)
    return number < len(parts) and parts[number] != "LOAD"


def instructions_of(code: CodeType) -> Iterator[tuple[int, dis.Instruction]]:
    """Each instruction of a code object with its line, which `dis` tells in other ways from version to version."""
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
