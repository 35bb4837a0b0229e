"""Several processes that trained together, made into one trial: a trace in which each name tells its rank.

Ranks meet in the backward, where gradients are averaged. So of each step all ranks' rows up to there come first, rank
by rank, then the rest: what one rank did otherwise stands before what it did to the others.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from repro_audit.storage.facts import Facts
from repro_audit.storage.trace import Phase, Trace, TraceWriter
from repro_audit.storage.values import ALIGNMENT, DATA, INDEX


def merge_traces(places: Sequence[Path], destination: Path) -> None:
    """Write one trace of those of all ranks, in their order."""
    traces = [Trace.open(place) for place in places]
    rows = [
        (int(trace.step[row]), bool(late), rank, row)
        for rank, trace in enumerate(traces)
        for row, late in enumerate(_after_meeting(trace))
    ]
    writer = TraceWriter(destination)
    ids = [[writer.intern(text) for text in trace.strings] for trace in traces]
    for step, _, rank, row in sorted(rows):
        trace = traces[rank]
        writer.add(
            step,
            int(trace.phase[row]),
            int(trace.role[row]),
            ids[rank][int(trace.name[row])],
            ids[rank][int(trace.meta[row])],
            trace.digest[row].tobytes(),
        )
    writer.close()


def _after_meeting(trace: Trace) -> Any:
    """By row: whether it stands after its step's first gradient or change of a parameter."""
    late = np.zeros(len(trace), dtype=bool)
    meets = np.asarray(trace.phase) >= Phase.BACKWARD
    for step in np.unique(trace.step):
        rows = np.flatnonzero(np.asarray(trace.step) == step)
        late[rows] = np.logical_or.accumulate(meets[rows])
    return late


def merge_values(places: Sequence[Path], destination: Path) -> None:
    """Put the values that ranks saved into one directory."""
    destination.mkdir(exist_ok=True)
    with (destination / DATA).open("ab") as data, (destination / INDEX).open("a") as index:
        for place in places:
            if not (place / INDEX).exists():
                continue
            data.write(bytes(-data.tell() % ALIGNMENT))
            start = data.tell()
            data.write((place / DATA).read_bytes())
            for line in (place / INDEX).read_text(encoding="ascii").splitlines():
                entry = json.loads(line)
                index.write(json.dumps({**entry, "start": entry["start"] + start}) + "\n")


def merge_logs(places: Sequence[Path], destination: Path) -> None:
    """Append what ranks noted line by line, each kind to one file."""
    for log in chain.from_iterable(place.glob("*.jsonl") for place in places):
        with (destination / log.name).open("ab") as file, log.open("rb") as lines:
            shutil.copyfileobj(lines, file)


def merge_facts(ranks: Sequence[Facts]) -> Facts:
    """What the ranks learnt: of the program what the first did, of the data what all saw."""
    first = ranks[0]
    return dataclasses.replace(
        first,
        steps=min(facts.steps for facts in ranks),
        samples_seen=sum(facts.samples_seen for facts in ranks),
        reseeds=_union(facts.reseeds for facts in ranks),
        own_files=tuple(sorted(_union(facts.own_files for facts in ranks))),
        unseen=_union(facts.unseen for facts in ranks),
        unpinned={
            name: sorted({line for facts in ranks for line in facts.unpinned.get(name, ())})
            for name in _union(facts.unpinned for facts in ranks)
        },
        failing={name: why for facts in ranks for name, why in facts.failing.items()},
        lacking={name: why for facts in ranks for name, why in facts.lacking.items()},
        ranks=len(ranks),
    )


def _union(parts: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(parts)))
