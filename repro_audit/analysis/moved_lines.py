"""A run's events with lines as another state of the program's files has them: an edit above moves nothing. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from repro_audit.storage.events import COLUMNS, Detail, Kind, Site

_ALIKE = 20_000
"""Lines from which on a diff passes over those that are frequent, which is quick and less exact."""


AS_IT_WAS = " (as recorded)"
"""Behind the name of a file that is not to be opened."""


def placed(detail: Detail, root: Path, known: Collection[str]) -> Detail:
    """Events whose sites are relative to the program's tree, with the tree at a place.

    Files that are not `known`, absolute as they come out, are named as such that were recorded.
    """

    def placed_at(site: Site) -> Site:
        file = str(root / site.file)
        return replace(site, file=file if file in known else f"{site.file}{AS_IT_WAS}")

    return _with_sites(detail, placed_at)


def without_lines(detail: Detail) -> Detail:
    """The events but for those of lines, which no two versions of Python tell alike."""
    rows = np.flatnonzero(detail.kind != Kind.LINE)
    return replace(detail, **{name: getattr(detail, name)[rows] for name, _ in COLUMNS})


def site_files(detail: Detail) -> set[str]:
    """The files of all sites."""
    sites = (Site.read(detail.strings[number]) for number in set(detail.site.tolist()))
    return {site.file for site in sites if site is not None}


def onto(detail: Detail, before: Mapping[str, str], after: Mapping[str, str], root: Path) -> Detail:
    """The events of a run whose files were `before`, with the lines that the like has in `after`.

    A line that is not there any more is said to be of the file as it was, so that it is taken for no other.
    """
    moves = {
        str(root / name): _moves(text, after[name])
        for name, text in before.items()
        if name in after and after[name] != text
    }

    def moved(site: Site) -> Site:
        lines = moves.get(site.file)
        if lines is None:
            return site
        line = lines.get(site.line)
        if line is None:
            return replace(site, file=f"{site.file}{AS_IT_WAS}")
        return replace(site, line=line, first=lines.get(site.first, site.first))

    return _with_sites(detail, moved) if moves else detail


def _with_sites(detail: Detail, change: Callable[[Site], Site]) -> Detail:
    numbers = set(detail.site.tolist())
    strings = list(detail.strings)
    for number in numbers:
        site = Site.read(strings[number])
        if site is not None:
            strings[number] = change(site).text()
    return replace(detail, strings=tuple(strings))


def _moves(before: str, after: str) -> dict[int, int]:
    """By line of the first text: the line of the second that it is."""
    ours, theirs = before.splitlines(), after.splitlines()
    quick = max(len(ours), len(theirs)) > _ALIKE
    matcher = difflib.SequenceMatcher(None, ours, theirs, autojunk=quick)
    return {
        block.a + offset + 1: block.b + offset + 1
        for block in matcher.get_matching_blocks()
        for offset in range(block.size)
    }


def changed_lines(before: str, after: str) -> list[int]:
    """The lines of the second text that the first has not."""
    kept = set(_moves(before, after).values())
    return [line for line in range(1, len(after.splitlines()) + 1) if line not in kept]
