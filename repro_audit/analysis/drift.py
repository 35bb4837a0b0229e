"""Two traces -> which parameters differ after which steps, layer by layer; and whose values tell by how much. Pure.

A parameter that a step did not touch is as the last step before left it, for traces have no row of it there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from repro_audit.storage.facts import RANK, of_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repro_audit.storage.columns import Rows
    from repro_audit.storage.facts import Key
    from repro_audit.storage.trace import Trace

MOST_STEPS = 12
MOST_LAYERS = 40
MOST_VALUES = 1024
"""Parameters after a step that a trial saves the values of, those with the fewest elements first."""
MOST_ELEMENTS = 1 << 22
"""Of all of these together."""

_PARAMETER = re.compile(rf"({RANK})?param\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The parameters of one module, or of all below it."""

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
    left_out: int
    """Further layers, of which there were too many."""


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
    differ = [layer for layer in found if any(layer.differing)]
    if not differ:
        return None
    shown = found if len(found) <= MOST_LAYERS else differ[:MOST_LAYERS]
    return Drift(steps=tuple(steps), layers=tuple(shown), left_out=len(found) - len(shown))


def keys(trace: Trace) -> tuple[Key, ...]:
    """Whose values a trial is to save, so that a drift can be measured."""
    rows = _rows(trace)
    places = {place for step in _steps(trace, rows) for place in _held(trace, rows, step).values()}
    sizes = sorted((_elements(trace.strings[int(trace.meta[place])]), place) for place in places)
    found: list[Key] = []
    room = MOST_ELEMENTS
    for size, place in sizes[:MOST_VALUES]:
        room -= size
        if room < 0:
            break
        found.append(_key(trace, place))
    return tuple(sorted(found))


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
    """Parameters by their modules, or by modules around these, so far out that there are not too many."""
    places = {name: _place(name) for name in names}
    layers: dict[str, list[str]] = {}
    for depth in range(max((len(path) for _, path in places.values()), default=1), 0, -1):
        layers = _by_layer(places, depth)
        if len(layers) <= MOST_LAYERS:
            break
    return layers


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
