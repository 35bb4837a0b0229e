"""Puts one level of a source in force in this process, for tests of what it replaces."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from repro_audit.context import TrialContext

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from repro_audit.source import Source

NOON = 1_767_268_800
"""Of the first of January 2026."""


def context(directory: Path, source: Source, level: str, **words: Any) -> TrialContext:
    """A trial at a level of one source, with its own directory and tree below `directory`."""
    return TrialContext(
        seed=0,
        setting={source.id: level},
        directory=directory,
        root=directory,
        instant=NOON,
        **words,
    )


@contextmanager
def in_force(source: Source, level: str, trial: TrialContext) -> Iterator[TrialContext]:
    """A level of a source, in this process, until the end of the block."""
    with source.apply(level, trial):
        yield trial
