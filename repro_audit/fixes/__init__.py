"""What to write where a source is to blame: the edit of the program's own line, where its table has one. Pure.

`code` reads the program, `remedies` and `seeding` have the kinds of edits, each source's file the table of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from repro_audit.fixes.code import Code, Edit, diff, replaced
from repro_audit.notebook import Notebook

if TYPE_CHECKING:
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
    """All code of it, edited."""
    summary: str
    diff: str
    notebook: Notebook | None = None
    """As `Code` has it."""

    @property
    def written(self) -> str:
        """The file itself, edited: of a notebook, with all that is in it beside code."""
        return self.text if self.notebook is None else self.notebook.edited(self.text)


def propose(remedies: Iterable[Remedy], code: Code) -> Proposal | None:
    """The first remedy that fits, for each of the lines to blame; None where none fits any."""
    statements = [each for line in code.lines[:MOST_LINES] for each in code.at(line)]
    edits: list[Edit] = []
    summaries: list[str] = []
    for remedy in remedies:
        found = [list(remedy.edits(code, statement)) for statement in statements]
        fitting = [(name, edit) for each in found for name, edit in each]
        both = [*edits, *(edit for _, edit in fitting)]
        if not fitting or replaced(code, both) is None:
            continue
        edits = both
        summaries.append(remedy.summary.replace("{call}", fitting[0][0]))
        statements = [
            statement for statement, each in zip(statements, found, strict=True) if not each
        ]
    text = replaced(code, edits)
    if text is None:
        return None
    return Proposal(
        file=code.file,
        text=text,
        summary=" ".join(summaries),
        diff=diff(code, text),
        notebook=code.notebook,
    )
