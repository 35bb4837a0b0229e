"""Where a training can be cut in two, and what was found when it was; the driver makes the cut."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from repro_audit.storage.facts import Json

Kept: TypeAlias = "tuple[Callable[[], Json], Callable[[Json], None]]"
"""How to save where something is, and how to go on from there."""
Half = Literal["whole", "first", "second"]
"""Of a training: what a trial's process does of it."""


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
            "lost": self.lost,
            "origins": self.origins,
        }
