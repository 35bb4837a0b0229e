"""A training that goes on from its own checkpoint in a new process: its two traces as one, and what it lost. Pure.

What a resumed program does before it trains is not what the straight run did there: it makes its model again, reads
over batches that were seen, evaluates perhaps. So its first step is aligned with the straight run's from the end, and
what comes before that is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from repro_audit.analysis.compare import compare
from repro_audit.storage.facts import Json
from repro_audit.storage.trace import PUT_BACK, SETTING, Observation, Phase, Role, Trace

_BATCH = re.compile(r"(|loader\d+[.])batch\b")
_HELD = {"param": "parameter", "buffer": "buffer", "state": "state"}
"""By the first word of an observation's name, what kind of thing it is to lose this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The rows of both halves."""

    rows: list[Observation]
    left_out: bool
    """The resumed process computed something before its first step."""


def join(straight: Trace, first: Trace, second: Trace, *, steps: int) -> Joined:
    """The rows of a training that was ended after so many steps, and of its second half, which begins with that number.

    Rows of the straight run stand for what it did after its checkpoint and a resumed run need not do, such as to
    evaluate.
    """
    early = [row for row in first if row.step < steps]
    begun = {row.name for row in early if row.phase is Phase.INIT}
    late, found = [], []
    for row in second:
        if row.phase is not Phase.INIT or row.name not in begun:
            late.append(row)
        elif row.role is Role.OUTCOME and row.name.startswith("buffer."):
            found.append(replace(row, role=Role.CONTEXT, name=PUT_BACK + row.name))
    ours = [row for row in straight if row.step == steps]
    theirs = [row for row in late if row.step == steps]
    start, other = _aligned(ours, theirs)
    later = [row for row in straight if row.step > steps]
    return Joined(
        rows=[*early, *ours[:start], *_renamed(late[other:], [*ours[start:], *later]), *found],
        left_out=any(row.role is Role.OUTCOME for row in theirs[:other]),
    )


def _aligned(ours: Sequence[Observation], theirs: Sequence[Observation]) -> tuple[int, int]:
    """From where on two records of a step are of the same things."""
    mine, other = (
        [number for number, row in enumerate(rows) if row.role is Role.OUTCOME]
        for rows in (ours, theirs)
    )
    alike = 0
    for a, b in zip(reversed(mine), reversed(other), strict=False):
        if _what(ours[a]) != _what(theirs[b]):
            break
        alike += 1
    needed = len(mine) - _last_batch(ours, mine)
    if alike < min(needed, len(other)):  # something else is done in the step itself
        alike = needed
        place = len(other) - _last_batch(theirs, other)
    else:
        place = alike
    return (
        _with_circumstances(ours, mine, len(mine) - alike),
        _with_circumstances(theirs, other, len(other) - place),
    )


def _what(row: Observation) -> tuple[Phase, str]:
    """What a row is of, whichever loader a batch comes from."""
    return row.phase, row.name.removeprefix(_loader(row) or "")


def _last_batch(rows: Sequence[Observation], outcomes: Sequence[int]) -> int:
    """Which outcome begins the last batch; the first one where no batch was seen."""
    at = len(outcomes)
    while at and rows[outcomes[at - 1]].phase is not Phase.DATA:
        at -= 1
    while at and rows[outcomes[at - 1]].phase is Phase.DATA:
        at -= 1
    return at


def _with_circumstances(rows: Sequence[Observation], outcomes: Sequence[int], at: int) -> int:
    """The row where an outcome begins, with the circumstances that were observed right before it."""
    start = outcomes[at] if at < len(outcomes) else len(rows)
    while start and rows[start - 1].role is Role.CONTEXT and rows[start - 1].phase is Phase.DATA:
        start -= 1
    return start


def _renamed(rows: Sequence[Observation], like: Sequence[Observation]) -> Iterator[Observation]:
    """Rows with their loaders numbered as the straight run numbers them, the first with its first, and so on.

    A process numbers loaders as it first reads them, and a resumed one may make those anew that the straight run has.
    """
    theirs, ours = (
        dict.fromkeys(loader for row in each if (loader := _loader(row)) is not None)
        for each in (rows, like)
    )
    known = dict(zip(theirs, ours, strict=False))
    for row in rows:
        loader = _loader(row)
        if loader is None or loader not in known:
            yield row
        else:
            yield replace(row, name=known[loader] + row.name.removeprefix(loader))


def _loader(row: Observation) -> str | None:
    """How the name of a batch begins, by its loader: empty for the first one; None for other rows."""
    found = _BATCH.match(row.name) if row.phase is Phase.DATA else None
    return found[1] if found else None


# What was lost


def lost(straight: Trace, resumed: Trace) -> Json:
    """What a resumed training lost, by the trace of the straight one and the joined one of both halves.

    Returns:
        `lost`: names and kinds of what it did not have as before at its first step. `phase`: in which the two part
        first, `other_samples` whether a sampler handed out other ones there, and `generators` which ambient ones
        differ by then.
    """
    difference = compare(straight, resumed)
    if difference is None:
        return {"lost": [], "phase": "", "other_samples": False, "generators": []}
    first = difference.first
    around = _circumstances(straight, resumed, first.step)
    found = [[name, _HELD[name.partition(".")[0]]] for name in _not_put_back(straight, resumed)]
    found += [[text, "setting"] for text in _other_settings(straight, resumed, first.step)]
    return {
        "lost": found,
        "phase": first.phase.label,
        "other_samples": any(name.endswith(".indices") for name in around),
        "generators": [name for name in around if name.startswith("rng.")],
    }


def _circumstances(straight: Trace, resumed: Trace, until: int) -> list[str]:
    """The generators, and the samples that were handed out, that differ up to a step; by the names of their rows."""
    ours, theirs = (
        {
            (row.step, row.phase, row.name, row.occurrence): row.digest
            for row in _rows(trace, _explains)
            if row.step <= until
        }
        for trace in (straight, resumed)
    )
    return sorted({key[2] for key, bits in ours.items() if bits != theirs.get(key)})


def _explains(name: str) -> bool:
    return name.startswith("rng.") or name.endswith(".indices")


def _rows(trace: Trace, wanted: Callable[[str], bool]) -> Iterator[Observation]:
    """The rows of certain names, in execution order: most of a trace is of others."""
    names = [number for number, text in enumerate(trace.strings) if wanted(text)]
    return map(trace.row, np.flatnonzero(np.isin(trace.name, names)).tolist())


def _not_put_back(straight: Trace, resumed: Trace) -> list[str]:
    """What an optimizer stepped with, or a model held, otherwise than the straight run had left it."""
    put_back = [*_rows(resumed, lambda name: name.startswith(PUT_BACK))]
    if not put_back:
        return []
    first = min(row.step for row in put_back)
    found = {row.name.removeprefix(PUT_BACK): row.digest for row in put_back}
    left = {
        row.name: row.digest
        for row in _rows(straight, lambda name: name in found or name.startswith("state."))
        if row.step < first
    }
    differing = [name for name, bits in found.items() if name in left and left[name] != bits]
    missing = [name for name in _states(resumed, first) if name in left and _lacks(found, name)]
    return differing + missing


def _states(resumed: Trace, first: int) -> Iterable[str]:
    """What optimizers keep that have stepped from a step on."""
    rows = _rows(resumed, lambda name: name.startswith("state."))
    return dict.fromkeys(row.name for row in rows if row.step >= first)


def _lacks(found: Collection[str], state: str) -> bool:
    """Whether a state was not there, by itself or in a list, before the first step of its parameter."""
    parts = state.split(".")[1:]
    seen = any(f"param.{'.'.join(parts[:end])}" in found for end in range(1, len(parts)))
    return seen and state not in found and state.rpartition(".")[0] not in found


def _other_settings(straight: Trace, resumed: Trace, until: int) -> list[str]:
    """What was set otherwise for an optimizer, in words; in the first step where that is so, up to a step."""
    ours, theirs = (
        {
            (row.step, row.name.removeprefix(SETTING), row.occurrence): row.meta
            for row in _rows(trace, lambda name: name.startswith(SETTING))
            if row.step <= until
        }
        for trace in (straight, resumed)
    )
    differing = [key for key in ours if key in theirs and ours[key] != theirs[key]]
    at = min((step for step, _, _ in differing), default=0)
    return [
        f"{name}: {theirs[step, name, occurrence]} instead of {ours[step, name, occurrence]} in step {step}"
        for step, name, occurrence in differing
        if step == at
    ]
