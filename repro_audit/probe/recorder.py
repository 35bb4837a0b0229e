"""Writing observations to the trace: the one place that digests values, and the hot path of every trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_audit.probe.leaves import leaves
from repro_audit.probe.tensors import describe, digest
from repro_audit.trace import Role

if TYPE_CHECKING:
    from repro_audit.probe import Key
    from repro_audit.trace import TraceWriter
    from repro_audit.values import ValueWriter

_UNREADABLE = bytes(16)


class Recorder:
    """Adds rows at the current step, and saves the values that were asked for."""

    def __init__(self, trace: TraceWriter, values: ValueWriter | None, capture: frozenset[Key]) -> None:
        self.step = 0
        self.intern = trace.intern
        self._add = trace.add
        self._values = values
        self._capture = capture if values is not None else frozenset()
        self._seen: dict[tuple[int, int, int], int] = {}
        self._names = {trace.intern(name): name for _, _, name, _ in self._capture}

    def outcome(self, phase: int, name: int, value: object) -> None:
        """Observe one value; what can't be read is a row of its own kind, and never an error in the program."""
        try:
            meta, bits = self.intern(describe(value)), digest(value)
        except Exception as error:  # a type that no test of ours knows must not stop the program
            meta, bits = self.intern(f"unreadable ({type(error).__name__})"), _UNREADABLE
        self._add(self.step, phase, Role.OUTCOME, name, meta, bits)
        if self._capture:
            self._save(phase, name, value)

    def tree(self, phase: int, name: str, value: object) -> None:
        """Observe a nested value leaf by leaf."""
        for leaf, item in leaves(value):
            self.outcome(phase, self.intern(f"{name}.{leaf}" if leaf else name), item)

    def context(self, phase: int, name: str, bits: bytes, meta: str = "") -> None:
        """Observe a circumstance."""
        self._add(self.step, phase, Role.CONTEXT, self.intern(name), self.intern(meta), bits)

    def _save(self, phase: int, name: int, value: object) -> None:
        """Keep the value if its place is among those asked for."""
        place = (self.step, phase, name)
        occurrence = self._seen.get(place, 0)
        self._seen[place] = occurrence + 1
        text = self._names.get(name)
        if text is not None and self._values is not None:
            key = (self.step, phase, text, occurrence)
            if key in self._capture:
                self._values.add(key, value)
