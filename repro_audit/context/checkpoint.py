"""Where a training can be cut in two, and what was found when it was; the driver makes the cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Literal, TypeAlias

from repro_audit.storage.facts import Cut, Json

Kept: TypeAlias = "tuple[Callable[[], Json], Callable[[Json], None]]"
"""How to save where something is, and how to go on from there."""
Half = Literal["whole", "first", "second"]
"""Of a training: what a trial's process does of it."""


class Likeness(IntEnum):
    """How much a write of the program's looks like the checkpoint that it is to go on from."""

    OPENED = 0
    """A file below the tree, opened to be written anew."""
    SAVED = 1
    """By `torch.save`, wherever it went."""
    BELOW = 2
    """A file in a directory that the arguments for resuming name, opened to be written anew."""
    NAMED = 3
    """The very file that they name, or by `torch.save` in a directory that they name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A write of what may be the program's own checkpoint."""

    steps: int = 0
    """How many steps the program had made when it next did anything that is seen."""
    likeness: Likeness
    file: str
    """The program's file that writes, relative to the tree where it is below it; empty where none is on the stack."""
    line: int
    code: str
    """Of that line."""


def chosen(writes: Sequence[Write], steps: int) -> Cut | None:
    """The place for a cut, as near as can be to half of `steps`, where the program has written its checkpoint.

    Returns:
        None where it wrote nothing between its first step and its last.
    """
    within = [write for write in writes if 0 < write.steps < steps]
    if not within:
        return None
    likeness = max(write.likeness for write in within)
    alike = [write for write in writes if write.likeness is likeness]
    at = min(
        {write.steps for write in alike if 0 < write.steps < steps},
        key=lambda made: (abs(2 * made - steps), made),
    )
    until = [write for write in alike if write.steps <= at]
    return Cut(
        steps=at,
        likeness=int(likeness),
        writes=len(until),
        file=until[-1].file,
        line=until[-1].line,
        code=until[-1].code,
    )


@dataclass(slots=True, kw_only=True)
class Checkpoint:
    """Where one training can be cut, and the cut, where this process makes one half of it."""

    half: Half = "whole"
    directory: Path = field(default_factory=Path)
    """Of the first half's process; nothing is read or written there for a whole training."""
    steps: int | None = None
    """How many steps were made where it can be cut; None while that place was not met."""
    procedure: bool = False
    """The program trains by itself, and can't be stopped and resumed from outside."""
    script: bool = False
    """The program is a script, which may go on from a checkpoint of its own."""
    arguments: tuple[str, ...] | None = None
    """With which a script goes on from its own checkpoint; None where nobody said how."""
    cut: Cut | None = None
    """Of a script that goes on from its own checkpoint: where its first half ends."""
    writes: list[Write] = field(default_factory=list)
    """What may have been its checkpoint, in order, where the training went on after it."""
    wrote: bool = False
    """Something may have been its checkpoint, whether or not the training went on."""
    generators: list[str] = field(default_factory=list)
    """The ambient generators that it did not put back."""
    lost: list[list[str]] = field(default_factory=list)
    """What was not as before once everything was loaded: its name and what kind of thing it is."""
    origins: dict[str, Json] = field(default_factory=dict)
    """Where the program sets up what was lost, by its name; see `origins.Origin`."""
    emulated: dict[str, Kept] = field(default_factory=dict)
    """What a trial pins though no program could save it, such as the clock: it goes on where it was, so that what
    depends on it is not taken for lost state."""

    def told(self) -> Json:
        """For the survey of `checkpoint-resume`."""
        return {
            "steps": self.steps,
            "procedure": self.procedure,
            "script": self.script,
            "arguments": self.arguments,
            "written": self.wrote,
            "generators": self.generators,
            "lost": self.lost,
            "origins": self.origins,
        }
