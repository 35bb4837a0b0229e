"""Two traces -> which parameters differ after which steps, layer by layer; and whose values tell by how much. Pure.

A parameter that a step did not touch is as the last step before left it, for traces have no row of it there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from repro_audit.storage.columns import Rows
from repro_audit.storage.facts import RANK, Key, of_rank

if TYPE_CHECKING:
    from repro_audit.storage.trace import Trace

MOST_STEPS = 12
FEWEST_LAYERS, MOST_LAYERS = 8, 40
MOST_VALUES = 1024
"""Parameters after a step that a trial saves the values of."""
MOST_ELEMENTS = 1 << 22
"""Of all of these together."""

_PARAMETER = re.compile(rf"({RANK})?param\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The parameters of one module, of all below it, or of several modules in a row."""

    name: str
    parameters: int
    differing: tuple[tuple[Key, ...], ...]
    """After each of the steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How the parameters of two runs part."""

    steps: tuple[int, ...]
    """All, or evenly many."""
    layers: tuple[Layer, ...]


def drift(a: Trace, b: Trace) -> Drift | None:
    """Which parameters differ after which steps; None where none does."""
    ours, theirs = _rows(a), _rows(b)
    steps = _steps(a, ours)
    columns = [(_held(a, ours, step), _held(b, theirs, step)) for step in steps]
    layers = _layers(list(dict.fromkeys(name for held, _ in columns for name in held)))
    found = [
        Layer(
            name=layer,
            parameters=len(members),
            differing=tuple(
                tuple(
                    _key(a, held[name])
                    for name in members
                    if name in held and not _same(a, held[name], b, other.get(name))
                )
                for held, other in columns
            ),
        )
        for layer, members in layers.items()
    ]
    if not any(any(layer.differing) for layer in found):
        return None
    return Drift(steps=tuple(steps), layers=tuple(found))


def keys(trace: Trace) -> tuple[Key, ...]:
    """Whose values a trial is to save to measure a drift by: of each layer the smallest parameters, at every step."""
    rows = _rows(trace)
    columns = [_held(trace, rows, step) for step in _steps(trace, rows)]
    sizes = {
        name: _elements(trace.strings[int(trace.meta[place])])
        for held in columns
        for name, place in held.items()
    }
    layers = [sorted(names, key=sizes.__getitem__) for names in _layers(list(sizes)).values()]
    found: set[int] = set()
    room = MOST_ELEMENTS
    for name in filter(None, chain(*zip_longest(*layers))):
        places = {held[name] for held in columns if name in held}
        elements = sizes[name] * len(places)
        if elements <= room and len(found) + len(places) <= MOST_VALUES:
            found |= places
            room -= elements
    return tuple(sorted(_key(trace, place) for place in found))


def _rows(trace: Trace) -> Rows:
    """The rows of parameters, from the start of the training on."""
    ids = [number for number, text in enumerate(trace.strings) if _PARAMETER.match(text)]
    return np.flatnonzero(np.isin(trace.name, ids)).astype(np.int32)


def _steps(trace: Trace, rows: Rows) -> list[int]:
    """The first and the last step, and evenly many between."""
    count = int(trace.step[rows].max()) + 1 if len(rows) else 0
    chosen = min(count, MOST_STEPS)
    return [place * (count - 1) // max(chosen - 1, 1) for place in range(chosen)]


def _held(trace: Trace, rows: Rows, step: int) -> dict[str, int]:
    """By its name, the last row of each parameter at the end of a step."""
    before = rows[trace.step[rows] <= step][::-1]
    names, last = np.unique(trace.name[before], return_index=True)
    return {
        trace.strings[name]: place
        for name, place in zip(names.tolist(), before[last].tolist(), strict=True)
    }


def _same(a: Trace, ours: int, b: Trace, theirs: int | None) -> bool:
    return (
        theirs is not None
        and a.strings[int(a.meta[ours])] == b.strings[int(b.meta[theirs])]
        and a.digest[ours].tobytes() == b.digest[theirs].tobytes()
    )


def _key(trace: Trace, row: int) -> Key:
    found = trace.row(row)
    return (found.step, int(found.phase), found.name, found.occurrence)


def _elements(form: str) -> int:
    """How many a tensor of this form has; of what is none, one."""
    shape = re.search(r"\[([\d,]*)\]", form)
    return prod(map(int, filter(None, shape[1].split(",")))) if shape else 1


def _layers(names: Sequence[str]) -> dict[str, list[str]]:
    """Parameters by their modules, or by modules around these, so far out that there are not too many.

    Where there are too few then, or still too many, several in a row are one.
    """
    places = {name: _place(name) for name in names}
    many: dict[str, list[str]] = {}
    for depth in range(max((len(path) for _, path in places.values()), default=1), 0, -1):
        layers = _by_layer(places, depth)
        if len(layers) <= MOST_LAYERS:
            return layers if len(layers) >= FEWEST_LAYERS or not many else _in_ranges(many)
        many = layers
    return _in_ranges(many)


def _in_ranges(layers: dict[str, list[str]]) -> dict[str, list[str]]:
    """As many in a row together as it takes."""
    names, size = list(layers), -(-len(layers) // MOST_LAYERS)
    rows = [names[start : start + size] for start in range(0, len(names), size)]
    return {
        f"{row[0]} to {row[-1]}" if len(row) > 1 else row[0]: [
            each for name in row for each in layers[name]
        ]
        for row in rows
    }


def _by_layer(places: dict[str, tuple[str, list[str]]], depth: int) -> dict[str, list[str]]:
    layers: dict[str, list[str]] = {}
    for name, (rank, path) in places.items():
        layers.setdefault(rank + ".".join(path[:depth]), []).append(name)
    return layers


def _place(name: str) -> tuple[str, list[str]]:
    """The rank in words, and the modules around a parameter; of one that is in none, its own name."""
    rank, inner = of_rank(name)
    path = inner.removeprefix("param.").split(".")
    return "" if rank is None else f"rank {rank}, ", path[:-1] or path
