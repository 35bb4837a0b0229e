"""The errors of the tool, one tree, each with the exit code that it maps to.

Every error says what happened, where, why that is likely, and what to do next. Errors of the program under audit are
not here: they cross the process border as text (`repro_audit.storage.facts.Failure`).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import ClassVar


class ReproAuditError(Exception):
    """Something that the tool itself has to say; shown without a traceback.

    Args:
        what: what happened, one sentence.
        where: file, option or object that it happened at, or an empty string.
        why: the likely cause, or an empty string.
        next_step: what the user can do now, or an empty string.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, what: str, *, where: str = "", why: str = "", next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.why = why
        self.next_step = next_step

    def __str__(self) -> str:
        """All four parts, a line each, empty ones left out."""
        parts = (
            self.what,
            f"  where: {self.where}" if self.where else "",
            f"  why:   {self.why}" if self.why else "",
            f"  next:  {self.next_step}" if self.next_step else "",
        )
        return "\n".join(part for part in parts if part)


class UsageError(ReproAuditError):
    """The command line or the configuration asks for something that does not exist or can not be."""

    exit_code = 2


class BudgetSpentError(ReproAuditError):
    """The time that the user gave is over, and a trial was not made for that; no audit ends with it."""


class TargetError(ReproAuditError):
    """The target can not be loaded, returns something that is not accepted, or never trains."""

    exit_code = 3


class NeverTrainedError(TargetError):
    """The target ran to its end without one optimizer step."""


class TrainsElsewhereError(TargetError):
    """The target is about to train in processes that it spawns."""


class InternalError(ReproAuditError):
    """A defect of the tool."""

    exit_code = 70


class MissingInternalError(InternalError):
    """PyTorch lacks a private name that the tool uses, or it takes other arguments."""


class SourceFailedError(InternalError):
    """A source itself fails in a trial, where it must not be taken for a failure of the target."""

    @classmethod
    def of(cls, name: str, why: str) -> SourceFailedError:
        """What to say of the source with the id `name`, and of the error that it raised."""
        return cls(
            f"the source {name} can not be used: {why}",
            next_step=f"where it comes from a plugin, leave it out: --skip {name}",
        )


def nearest(name: str, known: Collection[str], noun: str) -> str:
    """What to do about an unknown name: the known one that is nearest, or all of them."""
    found = difflib.get_close_matches(name, known, n=1)
    if found:
        return f"did you mean {found[0]}?"
    return f"the {noun}s are: {', '.join(known)}" if known else f"there are no {noun}s"
