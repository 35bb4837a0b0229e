"""Strings that mean harm, in every place of a report where a string may stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeVar

MARKUP = (
    "</title></style></script></code></p>\"'><img src=x onerror=\"document.title='harmed'\">"
    "<script>alert(1)</script><b onclick=alert(2)>&lt;{{ 7 * 7 }}{% raw %}]]><!--"
)
Anything = TypeVar("Anything")


def everywhere(value: Anything, harm: str = MARKUP) -> Anything:
    """A model with the harm behind each of its strings, however deep they lie."""
    return _harmed(value, harm)  # type: ignore[no-any-return]


def _harmed(value: Any, harm: str) -> Any:
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return value + harm
    if is_dataclass(value) and not isinstance(value, type):
        each = {field.name: _harmed(getattr(value, field.name), harm) for field in fields(value)}
        return replace(value, **each)
    if isinstance(value, tuple):
        return tuple(_harmed(item, harm) for item in value)
    if isinstance(value, Mapping):
        return {_harmed(key, harm): _harmed(item, harm) for key, item in value.items()}
    return value
