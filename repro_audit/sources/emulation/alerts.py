"""What PyTorch says of operators that have no deterministic form: by name, in a warning, where it is not to raise.

Programs silence warnings, so the witness stands before all filters of theirs. What it hears goes no further: as written
the program would not hear it either.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from repro_audit.probe.files import place
from repro_audit.replacements import Replacements
from repro_audit.sources._program import behind

NO_FORM = " does not have a deterministic implementation"
BY_DEFAULT = " defaults to a non-deterministic algorithm"
"""Of kernels for attention: they have a deterministic form, and take it only where `warn_only` is not given.

The words of `Context.cpp` and `attention_backward.cu`: <https://github.com/pytorch/pytorch/tree/main/aten/src/ATen>.
"""
SERIAL = ("put_", "max_unpooling")
"""What PyTorch warns of on every device, and what is exact on a CPU whose algorithms are deterministic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An operator that PyTorch warned of."""

    operator: str
    line: str
    """`train.py:12`: of the program's own code, where it ran, or where the backward that it is part of was started."""
    has_form: bool
    """It is deterministic where `warn_only` is not given."""


def listen(
    told: Callable[[Alert], None], asked_for: Callable[[], bool], replacements: Replacements
) -> None:
    """Have `told` called with what PyTorch warns of.

    Args:
        told: is given each warning's content.
        asked_for: whether the program has deterministic algorithms on itself: then the warning is its own as well.
        replacements: until their end.
    """
    witness = _Witness(told, asked_for)
    known = list(warnings.filters)
    filters = _Filters(known)
    filters.first = ("ignore", witness, Warning, None, 0)
    list.insert(filters, 0, filters.first)
    replacements.attribute(warnings, "filters", filters)


class _Witness:
    """Stands where a filter has its pattern, so that it is shown the text of every warning."""

    def __init__(self, told: Callable[[Alert], None], asked_for: Callable[[], bool]) -> None:
        self._told = told
        self._asked_for = asked_for

    def match(self, text: str) -> bool:
        """Whether a warning is to go no further."""
        for words in (NO_FORM, BY_DEFAULT):
            operator, found, _ = text.partition(words)
            if not found:
                continue
            if not _exact_here(operator):
                frame, _ = behind(sys._getframe(1))
                line = place(frame.f_code.co_filename, frame.f_lineno) if frame else ""
                self._told(Alert(operator=operator, line=line, has_form=words == BY_DEFAULT))
            return not self._asked_for()
        return False


def _exact_here(operator: str) -> bool:
    """Whether an operator can not race: on a CPU, with one thread or one after the other."""
    torch: Any = sys.modules["torch"]
    if torch.cuda.is_initialized():
        return False
    return operator.startswith(SERIAL) or torch.get_num_threads() == 1


class _Filters(list[Any]):
    """`warnings.filters`, whose first stays the first, in copies too."""

    first: Any = None

    def insert(self, index: Any, item: Any) -> None:
        super().insert(max(1, index) if index >= 0 else index, item)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        if self.first not in self:
            super().insert(0, self.first)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if not isinstance(key, slice):
            return found
        copy = _Filters(found)
        copy.first = self.first
        return copy
