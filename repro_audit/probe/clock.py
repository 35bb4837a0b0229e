"""What the training is doing, for probes that write rows of their own: the hooks set it."""

from __future__ import annotations

from dataclasses import dataclass

from repro_audit.storage.trace import Phase


@dataclass(slots=True)
class Clock:
    """The current step and phase."""

    step: int = 0
    phase: int = int(Phase.INIT)
    fetching: bool = False
    """A loader fetches a batch. Workers do that too, and know nothing of the line that made it."""
