"""Two runs' losses and the growth of their difference as shapes: pure geometry, in the units of an SVG's view box."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from repro_audit.report import effect, text
from repro_audit.report.model import LossCurve

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 54, 8, 8, 22
"""The margins, in which the labels of the axes stand."""
_MOST_BARS = 200
_TICKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPlot:
    """Both losses over the steps."""

    pinned: tuple[str, ...]
    """The points of each stretch of finite losses, as `<polyline>` has them; so is `varied`."""
    varied: tuple[str, ...]
    steps: tuple[Tick, ...]
    values: tuple[Tick, ...]
    first: float | None
    """Where the first step that differs is, unless that is where the curves begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The difference at a step."""

    x: float
    y: float
    width: float
    height: float
    """Zero where the losses are the same."""
    finite: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class GapPlot:
    """The difference of both losses over the steps, on a logarithmic scale."""

    bars: tuple[Bar, ...]
    steps: tuple[Tick, ...]
    values: tuple[Tick, ...]


def losses(a: LossCurve, b: LossCurve) -> LossPlot | None:
    """Both curves on one scale; None where there is nothing to draw."""
    finite = [value for value in (*a.values, *b.values) if math.isfinite(value)]
    count = max(len(a.values), len(b.values))
    if not finite or count < 2:  # noqa: PLR2004  # one point is no curve
        return None
    low, high = min(finite), max(finite)
    if low == high:
        margin = abs(low) / 10 or 1.0
        low, high = low - margin, high + margin
    x, y = _horizontal(count), _vertical(low, high)
    gaps = effect.gaps(a, b)
    first = next((step for step, gap in enumerate(gaps) if gap != 0), 0)
    marks = _round_numbers(low, high)
    return LossPlot(
        pinned=_stretches(a.values, x, y),
        varied=_stretches(b.values, x, y),
        steps=_step_ticks(count, x),
        values=tuple(
            Tick(at=_rounded(y(value)), label=label)
            for value, label in zip(marks, _labels(marks), strict=True)
        ),
        first=_rounded(x(first)) if first else None,
    )


def gaps(a: LossCurve, b: LossCurve) -> GapPlot | None:
    """A bar a step; None where nothing differs. Of many steps, evenly many are shown."""
    all_gaps = effect.gaps(a, b)
    sizes = [gap for gap in all_gaps if gap > 0 and math.isfinite(gap)]
    if len(all_gaps) < 2 or all(gap == 0 for gap in all_gaps):  # noqa: PLR2004  # one step grows nothing
        return None
    low = math.floor(math.log10(min(sizes))) if sizes else 0
    high = max(math.ceil(math.log10(max(sizes))), low + 1) if sizes else 1
    count = min(len(all_gaps), _MOST_BARS)
    shown = [step * len(all_gaps) // count for step in range(count)]
    x, y = _horizontal(len(all_gaps), inset=True), _vertical(low - 0.15, high)
    width = max(0.8 * (WIDTH - LEFT - RIGHT) / count, 0.5)
    every = math.ceil((high - low + 1) / _TICKS)
    return GapPlot(
        bars=tuple(_bar(all_gaps[step], x(step), y, width) for step in shown),
        steps=_step_ticks(len(all_gaps), x),
        values=tuple(
            Tick(at=_rounded(y(power)), label=f"1e{power:+03d}")
            for power in range(low, high + 1, every)
        ),
    )


def gaps_in_words(a: LossCurve, b: LossCurve) -> str:
    """Where the difference begins, how large it gets, and how it ends."""
    found = effect.gaps(a, b)
    first = next((step for step, gap in enumerate(found) if gap != 0), None)
    if first is None:
        return "no difference"
    largest = max(range(len(found)), key=lambda step: effect.comparable(found[step]))
    return (
        f"the losses differ from step {first} on, by {text.number(found[first])} there; "
        f"most at step {largest}, by {text.number(found[largest])}; "
        f"at the last step by {text.number(found[-1])}"
    )


def _bar(gap: float, x: float, y: Callable[[float], float], width: float) -> Bar:
    floor, finite = HEIGHT - BOTTOM, math.isfinite(gap)
    top = floor if gap == 0 else y(math.log10(gap)) if finite else TOP
    return Bar(
        x=_rounded(x - width / 2),
        y=_rounded(top),
        width=_rounded(width),
        height=_rounded(floor - top),
        finite=finite,
    )


def _stretches(
    values: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]
) -> tuple[str, ...]:
    points = [(step, value) for step, value in enumerate(values)]
    return tuple(
        " ".join(f"{_rounded(x(step))},{_rounded(y(value))}" for step, value in stretch)
        for finite, stretch in groupby(points, key=lambda point: math.isfinite(point[1]))
        if finite
    )


def _horizontal(count: int, *, inset: bool = False) -> Callable[[float], float]:
    """The place of a step; `inset` by half a step, so that a bar around it has room."""
    room = WIDTH - LEFT - RIGHT
    if inset:
        return lambda step: LEFT + (step + 0.5) / count * room
    return lambda step: LEFT + step / (count - 1) * room


def _vertical(low: float, high: float) -> Callable[[float], float]:
    """The place of a value; by halves where the difference of two finite numbers is infinite."""
    part = 1.0 if math.isfinite(high - low) else 0.5
    room, span = HEIGHT - TOP - BOTTOM, high * part - low * part
    return lambda value: HEIGHT - BOTTOM - (value * part - low * part) / span * room


def _step_ticks(count: int, x: Callable[[float], float]) -> tuple[Tick, ...]:
    every = next(
        size * 10**power
        for power in range(20)
        for size in (1, 2, 5)
        if (count - 1) / (size * 10**power) <= 2 * _TICKS
    )
    return tuple(Tick(at=_rounded(x(step)), label=str(step)) for step in range(0, count, every))


def _round_numbers(low: float, high: float) -> list[float]:
    """A few round numbers within a range, or its ends where it is too narrow or too wide for any."""
    span = high - low
    if not 1e-300 < span < math.inf:  # noqa: PLR2004  # powers of ten beyond are no numbers
        return [low, high]
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    step = next((size * power for size in (1, 2, 5, 10) if span / (size * power) <= _TICKS), span)
    start = math.ceil(low / step)
    marks = [(start + number) * step for number in range(_TICKS + 1)]
    inside = [mark for mark in marks if low <= mark <= high]
    return inside if len(set(inside)) > 1 else [low, high]


def _labels(values: Sequence[float]) -> list[str]:
    """With as many digits as it takes to tell them from each other."""
    labels: list[str] = []
    for digits in range(3, 18):
        labels = [f"{value:.{digits}g}" for value in values]
        if len(set(labels)) == len(values):
            break
    return labels


def _rounded(value: float) -> float:
    return round(value, 2)
