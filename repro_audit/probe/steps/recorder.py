"""Writing observations to the trace: the one place that digests values, and the hot path of every trial."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

import torch
import xxhash

from repro_audit.probe.digest.capture import ValueWriter
from repro_audit.probe.digest.leaves import leaves
from repro_audit.probe.digest.tensors import describe, digest, pass_over
from repro_audit.storage.facts import Key
from repro_audit.storage.trace import Phase, Role, Trace, TraceWriter
from repro_audit.torch_internals.tensors import DISPATCH_KEYS

_UNREADABLE = bytes(16)
_OUTCOME, _CONTEXT = int(Role.OUTCOME), int(Role.CONTEXT)
_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter))
_SEQUENCES = frozenset((list, tuple))
_dispatch_keys = DISPATCH_KEYS.get()
_digest_memory = xxhash.xxh3_128_digest


class TensorSlot:
    """A name at which a tensor is observed again and again, and where its bytes lay the last time.

    It holds the address, not the tensor. Equal address, dtype, shape and contiguity make the bytes there the tensor's;
    one whose memory was freed has another address.
    """

    __slots__ = ("dtype", "keys", "memory", "meta", "name", "pointer", "shape", "size")

    def __init__(self, name: int) -> None:
        self.name = name
        self.shape: torch.Size | None = None
        """None while there is nothing to compare with."""
        self.dtype: torch.dtype | None = None
        self.keys = 0
        self.pointer = 0
        self.size = 0
        self.memory: Any = b""
        self.meta = 0

    def remember(self, value: object, intern: Callable[[str], int]) -> None:
        """Note where an ordinary tensor lies: dense, on the CPU, of elements that are what their bytes say."""
        self.shape = None
        if type(value) in _PLAIN:
            with suppress(Exception):  # it lies nowhere, as what torch.func wraps does
                self._remember(value, intern)

    def _remember(self, tensor: Any, intern: Callable[[str], int]) -> None:
        if (
            tensor.device.type == "cpu"
            and tensor.layout is torch.strided
            and tensor.is_contiguous()
            and not (
                tensor.is_quantized or tensor.is_complex() or tensor.is_nested or tensor.is_neg()
            )
            and 0 < tensor.nbytes <= tensor.untyped_storage().nbytes()
        ):
            self.shape, self.dtype, self.keys = tensor.shape, tensor.dtype, _keys(tensor)
            self.pointer, self.size = tensor.data_ptr(), tensor.nbytes
            self.memory = (ctypes.c_char * self.size).from_address(self.pointer)
            self.meta = intern(describe(tensor))

    def moved(self, tensor: torch.Tensor) -> bool:
        """Note the new address of a tensor of the same kind, as a gradient has at each step."""
        if _keys(tensor) != self.keys or tensor.untyped_storage().nbytes() < self.size:
            return False
        self.pointer = tensor.data_ptr()
        self.memory = (ctypes.c_char * self.size).from_address(self.pointer)
        return True


def _keys(tensor: torch.Tensor) -> int:
    """The dispatch keys: one number for device, layout and every peculiarity."""
    return int(_dispatch_keys(tensor).raw_repr())


class Recorder:
    """Adds rows at the current step, and saves the values that were asked for."""

    def __init__(
        self,
        trace: TraceWriter,
        values: ValueWriter | None,
        capture: frozenset[Key],
        prefix: str = "",
    ) -> None:
        self.step = 0
        self._text = trace.intern
        self.intern: Callable[[str], int] = (
            trace.intern if not prefix else lambda name: trace.intern(prefix + name)
        )
        """The id of a name, in this process."""
        self._add: Callable[[int, int, int, int, int, bytes], None] = trace.add
        self._texts = trace.texts
        self._values = values
        self._capture = capture if values is not None else frozenset()
        self._saves_all = values is not None and bool(values.sample)
        self._saves = bool(self._capture) or self._saves_all
        self._seen: dict[tuple[int, int, int], int] = {}
        self._begun: set[int] = set()
        """Names that a process before this one has first seen."""
        self._names = {trace.intern(name): name for _, _, name, _ in self._capture}
        """By id: those of which values are saved."""

    def tell(self, observed: Callable[[int, int, int, Iterable[str]], None]) -> None:
        """Tell of each outcome before it is observed: step, phase, name, and the texts that names are places in."""
        add, texts = self._add, self._texts

        def told(  # noqa: PLR0917 - as the function that it stands for
            step: int, phase: int, role: int, name: int, meta: int, bits: bytes
        ) -> None:
            if role == _OUTCOME:
                observed(step, phase, name, texts)
            add(step, phase, role, name, meta, bits)

        self._add = told

    def outcome(self, phase: int, name: int, value: object) -> None:
        """Observe one value; what can't be read is a row of its own kind, and never an error in the program."""
        try:
            meta, bits = self._text(describe(value)), digest(value)
        except Exception as error:  # a type that no test of ours knows must not stop the program
            self._unreadable(phase, name, error)
            return
        self._add(self.step, phase, _OUTCOME, name, meta, bits)
        if self._saves:
            self._save(phase, name, value)

    def again(self, phase: int, place: TensorSlot, value: Any) -> None:
        """Observe a tensor that is observed at every step, for a quarter of the cost where it is as it was."""
        try:
            lies_known = (
                type(value) in _PLAIN
                and value.shape == place.shape
                and value.dtype is place.dtype
                and value.is_contiguous()
                and (value.data_ptr() == place.pointer or place.moved(value))
                and not value.is_neg()
            )
        except Exception:  # as in `TensorSlot.remember`
            lies_known = False
        if lies_known:
            self._add(
                self.step, phase, _OUTCOME, place.name, place.meta, _digest_memory(place.memory)
            )
            if self._saves:
                self._save(phase, place.name, value)
            return
        self.outcome(phase, place.name, value)
        place.remember(value, self._text)

    def first(self, phase: int, place: TensorSlot, value: Any) -> None:
        """Observe a tensor that is new here, unless the training began with it in a process before this one."""
        if place.name not in self._begun:
            self.again(phase, place, value)

    def resume(self, earlier: Trace, trace: TraceWriter, step: int) -> None:
        """Go on at `step`, after the rows of another process, which replace those of this one."""
        self.step = step
        trace.clear()
        for row in earlier:
            name = trace.intern(row.name)
            self._add(row.step, row.phase, row.role, name, trace.intern(row.meta), row.digest)
            if row.phase is Phase.INIT:
                self._begun.add(name)

    def tree(self, phase: int, name: str, value: object) -> None:
        """Observe a nested value leaf by leaf."""
        kind = type(value)
        if kind is torch.Tensor:
            self.outcome(phase, self.intern(name), value)
            return
        if kind in _SEQUENCES and _PLAIN.issuperset(map(type, value)):  # type: ignore[call-overload]
            items: Any = value
            for number, item in enumerate(items):
                self.outcome(phase, self.intern(f"{name}.{number}"), item)
            return
        try:
            for leaf, item in leaves(value):
                self.outcome(phase, self.intern(f"{name}.{leaf}" if leaf else name), item)
        except Exception as error:  # as in `outcome`
            self._unreadable(phase, self.intern(name), error)

    def _unreadable(self, phase: int, name: int, error: Exception) -> None:
        form = f"unreadable ({type(error).__name__})"
        pass_over(form)
        meta = self._text(form)
        self._add(self.step, phase, _OUTCOME, name, meta, _UNREADABLE)

    def context(self, phase: int, name: str, bits: bytes, meta: str = "") -> None:
        """Observe a circumstance."""
        self._add(self.step, phase, _CONTEXT, self.intern(name), self._text(meta), bits)

    def _save(self, phase: int, name: int, value: object) -> None:
        """Keep the value if its place is among those asked for, or all are."""
        if self._saves_all and name not in self._names:
            known = 0 if self._capture else len(self._names)
            self._names.update(enumerate(islice(self._texts, known, None), known))
        place = (self.step, phase, name)
        occurrence = self._seen.get(place, 0)
        self._seen[place] = occurrence + 1
        text = self._names.get(name)
        if text is not None and self._values is not None:
            key = (self.step, phase, text, occurrence)
            if self._saves_all or key in self._capture:
                self._values.add(key, value)
