"""What a user may set: a name and a type, for the flags of a command and for the choices that a source leaves open."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from repro_audit.storage.facts import Facts


class Kind(Enum):
    """The type of a value, in the words of an error."""

    INTEGER = "an integer"
    NUMBER = "a number"
    TEXT = "a string"
    SWITCH = "true or false"
    INTEGERS = "a list of integers"
    TEXTS = "a list of strings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting, as `[tool.repro-audit]` spells it."""

    name: str
    """In kebab case."""
    kind: Kind
    default: Any
    """None where what is left out follows from the machine or the program."""
    help: str
    """One line."""
    minimum: float | None = None
    """Of a number, or of each number in a list."""
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    """What a string may be; anything where there are none."""

    def of(self, facts: Facts) -> Any:
        """The user's choice, for a source's own functions; the default where there is none."""
        return facts.options.get(self.name, self.default)

    def complaint(self, value: object) -> str | None:
        """Why `value`, as TOML has it, can not be taken; None where it can."""
        items = value if isinstance(value, list) else [value]
        fits = isinstance(value, list) == self._is_list and all(map(self._fits, items))
        if fits and (items or not self.default):
            return None
        return f"it must be {self._in_words()}, not {value!r}"

    def taken(self, value: Any) -> Any:
        """A value without complaint, as the program uses it: lists without repetitions."""
        return tuple(dict.fromkeys(value)) if self._is_list else value

    @property
    def _is_list(self) -> bool:
        return self.kind in {Kind.INTEGERS, Kind.TEXTS}

    def _fits(self, item: object) -> bool:
        if self.kind in {Kind.INTEGER, Kind.INTEGERS}:
            return type(item) is int and self._within(item)
        if self.kind is Kind.NUMBER:
            return type(item) in {int, float} and self._within(item)
        if self.kind is Kind.SWITCH:
            return isinstance(item, bool)
        return isinstance(item, str) and (not self.choices or item in self.choices)

    def _within(self, number: Any) -> bool:
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return bool(low <= number <= high)

    def _in_words(self) -> str:
        limits = [
            f"{self.minimum} or more" if self.minimum is not None else "",
            f"{self.maximum} or less" if self.maximum is not None else "",
            f"one of {', '.join(self.choices)}" if self.choices else "",
            "not empty" if self._is_list and self.default else "",
        ]
        return ", ".join([self.kind.value, *filter(None, limits)])
