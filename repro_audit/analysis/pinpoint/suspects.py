"""The line that does what a source is about, where its doing shows at a later line only. Pure.

The names on a line tell what it may read (`repro_audit.storage.reads`). Where the difference begins in something that
such a line ran, or was decided by it, the line itself is named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from repro_audit.storage import reads
from repro_audit.storage.events import Detail, Event, Kind, Line, Site
from repro_audit.storage.reads import Suspect

_LOOK_BACK = 1 << 16


def matches(detail: Detail, row: int, suspect: Suspect) -> bool:
    """Whether a row is of a line that does what the source is about."""
    site = Site.read(detail.strings[int(detail.site[row])])
    if site is None:
        return False
    if (site.file, site.line) in suspect.lines:
        return True
    if detail.kind[row] != Kind.LINE:
        return False
    return not suspect.reads.isdisjoint(Line.read(detail.strings[int(detail.meta[row])]).reads)


def in_words(event: Event, suspect: Suspect) -> str:
    """What a line that matches reads; `it reads a hash`."""
    named = [each for each in Line.read(event.meta).reads if each in suspect.reads]
    if not named and suspect.hidden_order:
        return "it hashes objects by their addresses"
    return reads.in_words(named or sorted(suspect.reads))


def before(
    detail: Detail, row: int, suspect: Suspect, functions: Iterable[tuple[str, str, int]]
) -> int | None:
    """The last line before a row, in one of some functions, that does what the source is about."""
    wanted = set(functions)
    start = max(0, row - _LOOK_BACK)
    known: dict[tuple[int, int], bool] = {}
    rows: list[int] = np.flatnonzero(detail.kind[start:row] == Kind.LINE).tolist()
    for place in reversed(rows):
        at = start + place
        key = int(detail.site[at]), int(detail.meta[at])
        if key not in known:
            site = Site.read(detail.strings[key[0]])
            here = site is not None and (site.file, site.function, site.first) in wanted
            known[key] = here and matches(detail, at, suspect)
        if known[key]:
            return at
    return None


def seen(detail: Detail, stop: int, suspect: Suspect) -> list[int]:
    """The first row, before a place, of each line that was seen to do what the source is about."""
    lines = replace(suspect, reads=frozenset())
    _, firsts = np.unique(detail.site[:stop], return_index=True)
    return [row for row in sorted(firsts.tolist()) if matches(detail, row, lines)]


def only(detail: Detail, stop: int, suspect: Suspect) -> int | None:
    """The first row of the only line before a place that does what the source is about; None where several do.

    Where the source decides an order, many lines may hash what is in it: one that goes through it is likelier.
    """
    if suspect.hidden_order and suspect.lines:
        ordering = only(detail, stop, replace(suspect, lines=frozenset()))
        if ordering is not None:
            return ordering
    found: dict[bool, dict[tuple[str, int], int]] = {True: {}, False: {}}
    seen: set[tuple[int, int]] = set()
    for at in np.flatnonzero(detail.kind[:stop] == Kind.LINE).tolist():
        key = int(detail.site[at]), int(detail.meta[at])
        if key in seen:
            continue
        seen.add(key)
        site = Site.read(detail.strings[key[0]])
        if site is not None and matches(detail, at, suspect):
            place = (site.file, site.line)
            found[place in suspect.lines].setdefault(place, at)
    # What was seen to do it, rather than what names a function that does.
    likely = list((found[True] or found[False]).values())
    return likely[0] if len(likely) == 1 else None
