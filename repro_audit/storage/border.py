"""Plain data that crosses the border between processes: dataclasses as JSON, and back by their annotations."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def dumps(value: object) -> str:
    """A dataclass as text that `loads` reads; it may hold others, paths, and whatever `json` writes.

    Raises:
        TypeError: it holds something else.
    """
    return json.dumps(value, default=_plain)


def loads(kind: type[T], text: str | bytes) -> T:
    """What `dumps` wrote of a dataclass of this type. Whoever defines it has all that its annotations name."""
    found: T = _read(kind, json.loads(text))
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Path):
        return str(value)
    message = f"no plain data: {value!r}"
    raise TypeError(message)


def _read(kind: Any, data: Any) -> Any:
    inner = get_args(kind)
    if data is not None and type(None) in inner:
        return _read(inner[0], data)
    if isinstance(data, list) and get_origin(kind) is tuple:
        items = inner[:1] * len(data) if inner[-1] is ... else inner
        return tuple(map(_read, items, data))
    if isinstance(data, dict) and is_dataclass(kind):
        kinds = get_type_hints(kind)
        make: Any = kind
        return make(**{name: _read(kinds[name], each) for name, each in data.items()})
    return Path(data) if kind is Path and data is not None else data
