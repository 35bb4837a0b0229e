"""A drift as a grid: a cell for each layer and step, darker the larger the difference.

The page colours it, the terminal draws it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from repro_audit.report import text
from repro_audit.report.effect import comparable
from repro_audit.report.model import Drift, LayerDrift

SHADES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One layer after one step."""

    said: str
    """`same`, `1.5e-08`; `differs` where it is not known by how much."""
    shade: int | None
    """0 for the same, up to `SHADES`; None where it is not known by how much."""


def grid(drift: Drift) -> list[tuple[LayerDrift, list[Cell]]]:
    """Each layer with its cells, shaded on a logarithmic scale over all of them."""
    sizes = [size for layer in drift.layers for size in layer.max_abs if size is not None]
    logs = [math.log(size) for size in sizes if 0 < size < math.inf]
    low, high = min(logs, default=0.0), max(logs, default=0.0)

    def cell(_step: int, differing: int, size: float | None) -> Cell:
        if not differing:
            return Cell(said="same", shade=0)
        if size is None:
            return Cell(said="differs", shade=None)
        # A NaN against a number; or signs of zero, which are no distance apart.
        if not 0 < size < math.inf:
            return Cell(said=f"{size:.1e}", shade=1 if size == 0 else SHADES)
        part = (math.log(size) - low) / ((high - low) or 1.0)
        return Cell(said=f"{size:.1e}", shade=1 + round(part * (SHADES - 1)))

    return [(layer, [cell(*each) for each in _columns(drift, layer)]) for layer in drift.layers]


def _columns(drift: Drift, layer: LayerDrift) -> Iterable[tuple[int, int, float | None]]:
    """Step by step; not strict, for a saved report may have been edited."""
    return zip(drift.steps, layer.differing, layer.max_abs, strict=False)


def in_words(drift: Drift) -> str:
    """Where the drift begins, and where it is largest: `from step 0 on; most in layer head, by 0.02 after step 7`."""
    cells = [
        (step, layer, size)
        for layer in drift.layers
        for step, differing, size in _columns(drift, layer)
        if differing
    ]
    first = min((step for step, _, _ in cells), default=0)
    differ = sum(any(layer.differing) for layer in drift.layers)
    said = f"{differ} of {text.plural(len(drift.layers), 'layer')} differ, the first after step {first}"
    measured = [(size, layer.name, step) for step, layer, size in cells if size is not None]
    if not measured:
        return said
    size, name, step = max(measured, key=lambda each: comparable(each[0]))
    return f"{said}; most in layer {name}, by {text.number(size)} after step {step}"
