"""What an operator was given and what it left, as two digests and a form.

What an operator's schema says decides what counts: the memory that it only overwrites is none of its inputs, a
generator's state is the ledger's matter, and memory that nobody has written yet is not read.
"""

from __future__ import annotations

import ctypes
import marshal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import xxhash

from repro_audit.probe.detail.tokens import ORDINARY, token
from repro_audit.probe.digest.tensors import BEING_CAPTURED, describe, digest
from repro_audit.torch_internals.operators import SCHEMA

_hash = xxhash.xxh3_128_digest
_dumps = marshal.dumps
_FORMAT: Final = 2
"""Marshal's last format without references, so that equal values have equal bytes; binary for floats."""

_SCALARS = frozenset((type(None), bool, int, float, complex, str))
_NAMES = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_FORMS_SHOWN: Final = 8

_UNWRITTEN = frozenset(
    f"aten::{name}"
    for name in (
        *("empty", "empty_like", "empty_strided", "empty_permuted", "empty_quantized"),
        *("new_empty", "new_empty_strided", "resize_", "resize", "resize_as_"),
    )
)
"""Operators whose output is whatever the memory held."""
_OVERWRITING = frozenset(
    f"aten::{name}"
    for name in (
        *("copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "exponential_"),
        *("geometric_", "cauchy_", "log_normal_", "bernoulli_"),
        *("_foreach_copy_", "_foreach_zero_", "resize_", "resize_as_", "set_"),
    )
)
"""Operators that write all of their first argument and read nothing of it."""
_SCRATCH = frozenset(("reserve", "reserveSpace", "reserve_space", "workspace"))
"""Arguments that one kernel fills for another, partly: their other bytes are whatever the memory held."""
_SCRATCH_OUTPUTS = {
    "aten::_cudnn_rnn": 4,
    "aten::miopen_rnn": 4,
    "aten::mkldnn_rnn_layer": 3,
    "aten::cudnn_batch_norm": 3,
    "aten::_batch_norm_with_update": 3,
}
"""The same as outputs, by position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """What is known of an operator, looked up once."""

    name: int
    seeded: bool
    """It draws from a generator, or may."""
    written: tuple[tuple[int, str], ...]
    """Position and name of arguments that it writes in place."""
    unread: frozenset[int | str]
    """Positions and names of arguments whose contents are none of its inputs."""
    unwritten: bool
    """Its output is not defined."""
    scratch: int
    """Which of its outputs is defined in part; -1 for none."""
    silent: bool = False
    """It tells a profiler something, and computes nothing."""

    @classmethod
    def of(cls, function: Any, intern: Callable[[str], int]) -> Operator:
        """Read the schema of an operator; a higher-order one has none."""
        schema = getattr(function, SCHEMA.name, None)
        if schema is None:
            return cls(
                name=intern(str(function)),
                seeded=True,
                written=(),
                unread=frozenset(),
                unwritten=False,
                scratch=-1,
            )
        arguments = schema.arguments
        written = tuple(
            (place, argument.name)
            for place, argument in enumerate(arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        )
        unread: set[int | str] = set()
        for place, argument in enumerate(arguments):
            is_out = (place, argument.name) in written and argument.kwarg_only
            is_overwritten = not place and schema.name in _OVERWRITING
            if is_out or is_overwritten or argument.name in _SCRATCH:
                unread |= {place, argument.name}
        return cls(
            name=intern(schema.name),
            seeded=torch.Tag.nondeterministic_seeded in function.tags,
            written=written,
            unread=frozenset(unread),
            unwritten=schema.name in _UNWRITTEN,
            scratch=_SCRATCH_OUTPUTS.get(schema.name, -1),
            silent=schema.name.startswith("profiler::"),
        )

    def inputs(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """The digest of all inputs, before it runs."""
        tree: list[Any] = []
        if self.unread:
            for place, value in enumerate(args):
                (_note_form if place in self.unread else note)(value, tree)
        else:
            for value in args:
                note(value, tree)
        for name, value in kwargs.items():
            tree.append(name)
            (_note_form if name in self.unread else note)(value, tree)
        return _hash(_dumps(tree, _FORMAT))

    def outputs(self, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> list[Any]:
        """What it returned, value by value, then what it wrote in place and did not return."""
        found: list[Any] = []
        _flatten(result, found)
        for place, name in self.written:
            value = args[place] if place < len(args) else kwargs.get(name)
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if item is not None and not any(item is known for known in found):
                    found.append(item)
        return found


class Forms:
    """Writes down outputs."""

    def __init__(self, intern: Callable[[str], int]) -> None:
        self._intern = intern
        self._metas: dict[tuple[str, ...], int] = {}

    def read(self, operator: Operator, outputs: list[Any]) -> tuple[int, bytes]:
        """The id of the outputs' form, and their digest."""
        if operator.unwritten:
            forms = [f"{describe(value)} (not yet written, not read)" for value in outputs]
            return self._meta(forms), _hash(_dumps(forms, _FORMAT))
        forms, contents = [], []
        for place, value in enumerate(outputs):
            if place == operator.scratch:
                form, bits = f"{describe(value)} (scratch memory, not read)", b""
            else:
                form, bits = token(value)
                if type(value) not in ORDINARY or value.is_meta:
                    form += _unseen(value, form, bits)
            forms.append(form)
            contents.append(bits)
        return self._meta(forms), _hash(_dumps((forms, contents), _FORMAT))

    def _meta(self, forms: list[str]) -> int:
        key = tuple(forms)
        known = self._metas.get(key)
        if known is None:
            if len(self._metas) >= _MOST_METAS:
                self._metas.clear()
            more = len(forms) - _FORMS_SHOWN
            text = ", ".join(forms[:_FORMS_SHOWN]) + (f" and {more} more" if more > 0 else "")
            known = self._metas[key] = self._intern(text)
        return known


_MOST_METAS: Final = 4096


def _unseen(value: object, form: str, bits: bytes) -> str:
    """Says so where a digest is one of the form alone."""
    if isinstance(value, torch.Tensor):
        for reason in ("no data", "no memory", BEING_CAPTURED):
            if bits == _hash(f"?{form} ({reason})".encode("utf-8", "surrogatepass")):
                return f" ({reason}: contents not seen)"
    return ""


def _flatten(value: Any, into: list[Any]) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            _flatten(item, into)
    elif value is not None:
        into.append(value)


def note(value: Any, tree: list[Any]) -> None:
    """Append a value to what is going to be digested: of a tensor its form and the digest of its bytes."""
    kind = type(value)
    if kind in ORDINARY:
        tree += token(value)
    elif kind in _SCALARS:
        tree.append(value)
    elif kind is list or kind is tuple:
        inner: list[Any] = []
        for item in value:
            note(item, inner)
        tree.append(inner)
    elif isinstance(value, _NAMES):
        tree.append(str(value))
    elif isinstance(value, torch.Generator):
        tree.append("generator")
    elif kind is torch.UntypedStorage:
        tree.append(_storage_bits(value))
    elif isinstance(value, torch.nn.Module):
        tree.append(type(value).__name__)
        note(state(value), tree)
    else:
        tree += (describe(value), digest(value))


def _storage_bits(storage: torch.UntypedStorage) -> bytes:
    """Of memory that `set_` gives a tensor, as where a worker's batch arrives: its bytes came from elsewhere."""
    size = storage.nbytes()
    if storage.device.type != "cpu" or not size or not (address := storage.data_ptr()):
        return b""
    return _hash((ctypes.c_char * size).from_address(address))


def _note_form(value: Any, tree: list[Any]) -> None:
    if isinstance(value, (list, tuple)):
        tree.append([describe(item) for item in value])
    else:
        tree.append(describe(value))


def state(module: torch.nn.Module) -> list[torch.Tensor]:
    """A module's parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


def digest_all(values: list[Any]) -> bytes:
    """One digest of some values of any kind."""
    tree: list[Any] = []
    for value in values:
        note(value, tree)
    return _hash(_dumps(tree, _FORMAT))
