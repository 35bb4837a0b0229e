"""Cutting a training in two: a first process saves where an epoch ended, a second one loads that and goes on.

What is saved is what a careful program saves: everything that has a `state_dict`, the ambient generators, and the
generator that a DataLoader was given. The rows that the first process observed become the second one's, so that its
trace is that of one training.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from repro_audit.context.checkpoint import Checkpoint
from repro_audit.probe import Probe, StopTraining
from repro_audit.storage.trace import Trace

STATE, RECORD = "checkpoint.pt", "checkpoint.json"
MOST_PLACED = 16
"""Of more that was lost, no line is looked for."""


class RootsOf(Protocol):
    """A callable, see below."""

    def __call__(self, *, optimizers: bool) -> dict[str, Any]:
        """What the training consists of, by name; with `optimizers`, the default one is made if need be."""
        ...


def begins(cut: Checkpoint, roots_of: RootsOf, probe: Probe) -> bool:
    """Load what the first half saved, before the first batch; whether there was anything to load."""
    if cut.half != "second":
        return False
    from repro_audit.probe.digest.tensors import reading
    from repro_audit.trial.driver import origins, state

    record = json.loads((cut.directory / RECORD).read_text(encoding="utf-8"))
    roots = roots_of(optimizers=record["optimizers"])
    state.load(cut.directory / STATE, roots)
    cut.lost = state.lost(record["ledger"], state.ledger(roots)) + record["lost"]
    names = [name for name, _ in cut.lost[:MOST_PLACED]]
    with reading("where a lost state is set up"):
        cut.origins = origins.find(names, state.values(roots))
    cut.steps = record["steps"]
    for name, (_, go_on) in cut.emulated.items():
        go_on(record["emulated"][name])
    probe.resume(
        Trace.open(cut.directory / "trace"),
        steps=record["steps"],
        losses=record["losses"],
        by_hand=record["by_hand"],
    )
    return True


def epoch_over(cut: Checkpoint, roots_of: RootsOf, probe: Probe, *, read_once: bool) -> None:
    """Note the place, between two epochs; in the first half save, and end the training there.

    Args:
        roots_of: what the training consists of, by name, without or with the optimizers.
        read_once: the loader is an iterator, which goes on where it is.
    """
    if cut.steps is not None:
        return
    cut.steps = probe.steps
    if cut.half != "first":
        return
    from repro_audit.trial.driver import state

    roots = roots_of(optimizers=False)
    position = (
        [["loader", "position"]] if read_once and not state.has_state("loader", roots) else []
    )
    record = {
        "steps": probe.steps,
        "losses": probe.losses,
        "by_hand": probe.hooks.by_hand,
        "optimizers": "optimizer" in roots,
        "ledger": state.ledger(roots),
        "lost": position,
        "emulated": {name: saved() for name, (saved, _) in cut.emulated.items()},
    }
    state.save(cut.directory / STATE, roots)
    (cut.directory / RECORD).write_text(json.dumps(record), encoding="utf-8")
    probe.trace.close()  # what is observed from here on is the second half's
    raise StopTraining
