"""What a training showed of the program, besides the trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from repro_audit.storage.facts import Facts


@dataclass(slots=True, kw_only=True)
class Notes:
    """What a training showed of the program, besides the trace."""

    facts: Facts | None = None
    """What the trial learnt, once a training that the program does by itself has made all its steps."""
    assumptions: list[str] = field(default_factory=list)
    """What the program left open and the driver chose, a line each."""
    what: str = ""
    """What trains, in words for messages."""
    accepts_seed: bool = False
    trains_itself: bool = False
    """No loop of the driver's own: `build` trained, or returned what does."""
    ended: bool = False
    """It did, and came to its own end."""
    loaders: list[dict[str, Any]] = field(default_factory=list)
    """Each DataLoader that was iterated: `num_workers`, `batch_size`, `persistent`, `dataset`."""
    samples_seen: int = 0
    samples_total: int | None = None
    batches_seen: int = 0
    batches_per_epoch: int | None = None
    epochs: int = 0
    left_early: int | None = None
    """After how many steps an epoch was left before its end; None where none was."""

    def assume(self, text: str) -> None:
        """Note a choice, once."""
        if text not in self.assumptions:
            self.assumptions.append(text)
