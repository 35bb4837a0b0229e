"""Plain data that crosses the border between processes: dataclasses as JSON, and back by their annotations.

A file holds one of them, or is a log: a line for each, appended by any process of a trial.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
_annotations = functools.cache(get_type_hints)
_SCALARS = {bool, int, float, str}
_MAPPINGS = {dict, Mapping}


def dumps(value: object) -> str:
    """A dataclass as text that `loads` reads; it may hold others, paths, and whatever `json` writes.

    Raises:
        TypeError: it holds something else.
    """
    return json.dumps(value, default=_plain)


def loads(kind: type[T], text: str | bytes) -> T:
    """What `dumps` wrote of a dataclass of this type. Whoever defines it has all that its annotations name."""
    found: T = read(kind, json.loads(text))
    return found


def save(value: object, path: Path) -> None:
    """Write a dataclass as JSON, atomically: a reader sees the whole file or none."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(dumps(value), encoding="utf-8")
    part.replace(path)


def append(log: str | Path, entry: object) -> None:
    """Add a line to a log, whole or not at all.

    The file is opened anew: a descriptor kept open could be closed by the program, and its number used for another.
    """
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, dumps(entry).encode() + b"\n")
    finally:
        os.close(file)


def entries(log: Path, kind: type[T]) -> Iterator[T]:
    """What a log holds of a type, in order; nothing of a line that a killed process has torn, or of no log."""
    with suppress(FileNotFoundError):
        for line in log.read_bytes().split(b"\n")[:-1]:
            with suppress(ValueError, TypeError):
                found = read(kind, json.loads(line))
                if isinstance(found, kind):
                    yield found


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no plain data: {value!r}")


def read(kind: Any, data: Any) -> Any:
    """A value of the type that an annotation names, from plain data; keys that are no fields of it are passed over.

    Raises:
        TypeError: a field is missing, or is of another type.
        ValueError: an enumeration has no such member, or a text is no number.
    """
    inner = get_args(kind)
    if type(None) in inner:
        return None if data is None else read(inner[0], data)
    if get_origin(kind) is tuple and isinstance(data, list):
        items = inner[:1] * len(data) if inner[-1] is ... else inner
        return tuple(read(item, each) for item, each in zip(items, data, strict=True))
    if get_origin(kind) in _MAPPINGS and isinstance(data, dict):
        return {read(inner[0], key): read(inner[1], each) for key, each in data.items()}
    if is_dataclass(kind) and isinstance(data, dict):
        make: Any = kind
        kinds = _annotations(make)
        return make(
            **{name: read(kinds[name], each) for name, each in data.items() if name in kinds}
        )
    called = isinstance(kind, type) and issubclass(kind, (Path, Enum))
    if called or (kind is float and isinstance(data, (int, str))):
        return kind(data)
    composed = is_dataclass(kind) or get_origin(kind) in {tuple, *_MAPPINGS}
    if composed or (kind in _SCALARS and type(data) is not kind):
        raise TypeError(f"{data!r:.80} is no {getattr(kind, '__name__', kind)}")
    return data
