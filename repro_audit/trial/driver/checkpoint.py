"""Cutting a training in two: a first process saves where an epoch ended, a second one loads that and goes on.

What is saved is what a careful program saves: everything that has a `state_dict`, the ambient generators, and the
generator that a DataLoader was given. The rows that the first process observed become the second one's, so that its
trace is that of one training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from repro_audit.probe import StopTraining
from repro_audit.storage.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from repro_audit.probe import Probe
    from repro_audit.storage.facts import Json
    from repro_audit.trial.driver.loop import Loop
    from repro_audit.trial.request import Half

Kept: TypeAlias = "tuple[Callable[[], Json], Callable[[Json], None]]"
"""How to save where something is, and how to go on from there."""

STATE, RECORD = "checkpoint.pt", "checkpoint.json"
MOST_PLACED = 16
"""Of more that was lost, no line is looked for."""


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

    def begins(self, loop: Loop, probe: Probe) -> bool:
        """Load what the first half saved, before the first batch; whether there was anything to load."""
        if self.half != "second":
            return False
        from repro_audit.probe.digest.tensors import reading
        from repro_audit.trial.driver import origins, state

        record = json.loads((self.directory / RECORD).read_text(encoding="utf-8"))
        roots = loop.roots(optimizers=record["optimizers"])
        state.load(self.directory / STATE, roots)
        self.lost = state.lost(record["ledger"], state.ledger(roots)) + record["lost"]
        names = [name for name, _ in self.lost[:MOST_PLACED]]
        with reading("where a lost state is set up"):
            self.origins = origins.find(names, state.values(roots))
        self.steps = record["steps"]
        for name, (_, go_on) in self.emulated.items():
            go_on(record["emulated"][name])
        probe.resume(
            Trace.open(self.directory / "trace"),
            steps=record["steps"],
            losses=record["losses"],
            by_hand=record["by_hand"],
        )
        return True

    def epoch_over(self, loop: Loop, probe: Probe, *, read_once: bool) -> None:
        """Note the place, between two epochs; in the first half save, and end the training there.

        Args:
            read_once: the loader is an iterator, which goes on where it is.
        """
        if self.steps is not None:
            return
        self.steps = probe.steps
        if self.half != "first":
            return
        from repro_audit.trial.driver import state

        roots = loop.roots(optimizers=False)
        position = (
            [["loader", "position"]] if read_once and not state.has_state("loader", roots) else []
        )
        record = {
            "steps": probe.steps,
            "losses": probe.losses,
            "by_hand": probe.by_hand,
            "optimizers": "optimizer" in roots,
            "ledger": state.ledger(roots),
            "lost": position,
            "emulated": {name: saved() for name, (saved, _) in self.emulated.items()},
        }
        state.save(self.directory / STATE, roots)
        (self.directory / RECORD).write_text(json.dumps(record), encoding="utf-8")
        probe.trace.close()  # what is observed from here on is the second half's
        raise StopTraining

    def told(self) -> Json:
        """For the survey of `checkpoint-resume`."""
        return {
            "steps": self.steps,
            "procedure": self.procedure,
            "lost": self.lost,
            "origins": self.origins,
        }
