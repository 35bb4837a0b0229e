"""By how much two trials differ: where they first do, and how far their parameters drift apart from there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from repro_audit.analysis import drift
from repro_audit.analysis.compare import Difference, way
from repro_audit.errors import BudgetSpentError
from repro_audit.report.model import Divergence, DivergenceKind, Drift, LayerDrift, Link, Size
from repro_audit.storage.facts import Key
from repro_audit.storage.trace import Phase, Trace
from repro_audit.storage.values import Magnitude, Value, magnitude, open_values
from repro_audit.trial.request import VALUES, Watch

if TYPE_CHECKING:
    from repro_audit.trial.oracle import DivergedPair, Trial, TrialOracle


def measure(
    diverging_pairs: Mapping[str, DivergedPair], oracle: TrialOracle
) -> dict[str, Divergence]:
    """Measure the first difference of each pair. Values that no earlier run has saved are fetched by a further run."""
    references = {
        name: replace(diverging.reference, setting=dict(reference_setting(name, diverging)))
        for name, diverging in diverging_pairs.items()
    }
    wanted: dict[tuple[tuple[str, str], ...], set[Key]] = {}
    for name, diverging in diverging_pairs.items():
        for trial in (references[name], diverging.diverged):
            if diverging.key not in _saved(trial, oracle):
                setting = tuple(sorted(trial.setting.items()))
                keys = {diverging.key, *drift.keys(diverging.reference.trace)}
                wanted.setdefault(setting, set()).update(keys)
    runs = [(dict(setting), Watch(capture=tuple(sorted(keys)))) for setting, keys in wanted.items()]
    with suppress(BudgetSpentError):
        oracle.try_settings(runs)
    found = {}
    for name, diverging in diverging_pairs.items():
        ours, theirs = (_saved(trial, oracle) for trial in (references[name], diverging.diverged))
        traces = diverging.reference.trace, diverging.diverged.trace
        values = ours.get(diverging.key), theirs.get(diverging.key)
        divergence = divergence_of(diverging.difference, values, traces)
        drifted = None if diverging.narrowed else drift_of(traces, ours, theirs)
        found[name] = replace(divergence, drift=drifted)
    return found


def _saved(trial: Trial, oracle: TrialOracle) -> dict[Key, Value]:
    """The values that runs of the trial's setting saved, each as the first of them has it."""
    found: dict[Key, Value] = {}
    for other in oracle.trials.values():
        if other.setting == trial.setting and not other.edited:
            found = {**open_values(other.directory / VALUES), **found}
    return found


def reference_setting(name: str, diverging: DivergedPair) -> tuple[tuple[str, str], ...]:
    """The diverged setting with the source put back: the same interpreter can serve both."""
    setting = {key: level for key, level in diverging.diverged.setting.items() if key != name}
    return tuple(sorted(setting.items())) if setting != diverging.diverged.setting else ()


def divergence_of(
    difference: Difference,
    values: tuple[Value | None, Value | None],
    traces: tuple[Trace, Trace],
) -> Divergence:
    """The first difference, with its size where both runs' values could be had."""
    first, (ours, theirs) = difference.first, values
    kind, detail = DivergenceKind(first.kind), first.detail
    size = None
    if kind is DivergenceKind.VALUE and ours is not None and theirs is not None:
        size = magnitude(ours, theirs)
        if size.mismatched:
            kind = DivergenceKind(size.kind)
        else:  # what differs at random can not be had again
            size, detail = None, "the two runs could not be had again to measure by how much"
    if first.phase is Phase.DATA and _other_samples(difference):
        kind, detail = DivergenceKind.ORDER, "the sampler hands out other indices"
    return Divergence(
        step=first.step,
        phase=first.phase.label,
        kind=kind,
        name=first.name,
        size=reported(size) if size else None,
        detail=detail,
        way=_links(*traces),
    )


def drift_of(
    traces: tuple[Trace, Trace], ours: Mapping[Key, Value], theirs: Mapping[Key, Value]
) -> Drift | None:
    """How far the parameters drift apart, as far as their values were saved; None where none differs."""
    found = drift.drift(*traces)
    if found is None:
        return None

    def largest(keys: Sequence[Key]) -> float | None:
        sizes = [magnitude(ours[key], theirs[key]) for key in keys if key in ours and key in theirs]
        measured = [size.max_abs for size in sizes if size.mismatched]
        return next(filter(math.isnan, measured), max(measured, default=None))

    return Drift(
        steps=found.steps,
        layers=tuple(
            LayerDrift(
                name=layer.name,
                parameters=layer.parameters,
                differing=tuple(map(len, layer.differing)),
                max_abs=tuple(map(largest, layer.differing)),
            )
            for layer in found.layers
        ),
    )


def reported(size: Magnitude) -> Size:
    """A size as reports have it."""
    return Size(
        max_abs=size.max_abs,
        max_ulp=size.max_ulp,
        mismatched=size.mismatched,
        numel=size.numel,
        first_index=size.first_index,
    )


def _links(reference: Trace, diverged: Trace) -> tuple[Link, ...]:
    """How the difference goes on to the loss."""
    return tuple(
        Link(what=each.name, where=f"step {each.step}, {each.phase.label}")
        for each in way(reference, diverged)
    )


def _other_samples(difference: Difference) -> bool:
    """Whether the sampler handed out other indices where the batch first differs."""
    step = difference.first.step
    return any(row.name.endswith(".indices") and row.step == step for row in difference.context)
