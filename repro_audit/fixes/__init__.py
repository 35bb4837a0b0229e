"""What to write where a source is to blame: the edit of the program's own line, where its table has one. Pure.

`code` reads the program, `remedies` has the kinds of edits, each source's file the table of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from repro_audit.fixes.code import diff, replaced

if TYPE_CHECKING:
    from collections.abc import Iterable

    from repro_audit.fixes.code import Code
    from repro_audit.fixes.remedies import Remedy

__all__ = ["Proposal", "propose"]

MOST_LINES = 8
"""Of the lines to blame, as many are edited at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An edit of one file of the program's."""

    file: str
    """As `Code` has it."""
    text: str
    """The whole file, edited."""
    summary: str
    diff: str


def propose(remedies: Iterable[Remedy], code: Code) -> Proposal | None:
    """The first remedy that fits a line to blame, applied to all that it fits; None where none does."""
    statements = [each for line in code.lines[:MOST_LINES] for each in code.at(line)]
    for remedy in remedies:
        found = [list(remedy.edits(code, statement)) for statement in statements]
        named = [name for edits in found for name, _ in edits]
        if not named:
            continue
        text = replaced(code, [edit for edits in found for _, edit in edits])
        if text is None:
            continue
        return Proposal(
            file=code.file,
            text=text,
            summary=remedy.summary.replace("{call}", named[0]),
            diff=diff(code, text),
        )
    return None
