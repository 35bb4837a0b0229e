"""A script that goes on from a checkpoint of its own: where it is ended, and what it finds when it is run again.

The first process is ended, as by a kill, at the first event after the write that the checkpoint is. The second one runs
the program with the arguments for resuming, and what it does is numbered from there on. What both have observed is
joined with the straight run's trace later, where all three are at hand.
"""

from __future__ import annotations

import gc
import json
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

from repro_audit.context import TrialContext
from repro_audit.context.checkpoint import Checkpoint, Write
from repro_audit.errors import TargetError
from repro_audit.isolation.processes import leave
from repro_audit.probe import Probe
from repro_audit.probe.files import users_place
from repro_audit.probe.saves import Saves
from repro_audit.storage.facts import Cut

RECORD = "own_checkpoint.json"
"""In the first half's directory: where it was ended."""


@contextmanager
def followed(trial: TrialContext, cut: Checkpoint, probe: Probe) -> Iterator[None]:
    """Note what may be checkpoints, or end the program after one, or have it go on from one; nothing where none can.

    Raises:
        TargetError: the resumed program made no step.
    """
    if cut.arguments is None:
        yield
        return
    if cut.half == "second":
        _SecondHalf(cut, probe).begin()
        yield
        if probe.steps == cut.steps:
            raise TargetError(
                f"The program made no step when it was resumed with {' '.join(cut.arguments) or 'no arguments'}.",
                next_step="see that --resume-args has it train on from its checkpoint",
            )
        return
    half = _Whole(cut, probe) if cut.cut is None else _FirstHalf(cut, cut.cut, probe)
    saves = Saves(trial.root, cut.arguments, half.wrote)
    saves.install()
    trial.when_imported("torch", saves.wrap)
    try:
        yield
    finally:
        saves.uninstall()


class _Whole:
    """Notes what may be checkpoints; how many steps were made by then is known as the training goes on."""

    def __init__(self, cut: Checkpoint, probe: Probe) -> None:
        self._cut = cut
        self._probe = probe
        self._new: list[Write] = []

    def wrote(self, write: Write) -> None:
        """Note a write."""
        self._cut.wrote = True
        self._new.append(write)
        self._probe.between = self._go_on

    def _go_on(self, _event: str) -> None:
        self._probe.between = None
        new, self._new = self._new, []
        self._cut.writes += [replace(write, steps=self._probe.steps) for write in new]


class _FirstHalf:
    """Ends this process at the first event after a write."""

    def __init__(self, cut: Checkpoint, at: Cut, probe: Probe) -> None:
        self._cut = cut
        self._at = at
        self._probe = probe
        self._writes = 0
        self._generators: dict[str, list[str]] = {}

    def wrote(self, write: Write) -> None:
        """Count a write of the kind that is meant."""
        if write.likeness != self._at.likeness:
            return
        self._writes += 1
        if self._writes == self._at.writes:
            self._note_generators()
            self._probe.between = self._end

    def _note_generators(self) -> None:
        """Keep where the generators are: a careful program puts them there again."""
        from repro_audit.probe.digest.generators import ambient

        for name, bits in ambient():
            self._generators.setdefault(name, []).append(bits.hex())

    def _end(self, event: str) -> NoReturn:
        """Leave word of where this is, and end, without any of what a program does as it ends by itself."""
        self._note_generators()
        record = {
            "event": event,
            "steps": self._at.steps,
            "losses": self._probe.losses,
            "generators": self._generators,
            "emulated": {name: saved() for name, (saved, _) in self._cut.emulated.items()},
        }
        (self._cut.directory / RECORD).write_text(json.dumps(record), encoding="utf-8")
        self._probe.trace.close()
        processes = sys.modules.get("multiprocessing")
        for child in processes.active_children() if processes is not None else ():
            child.kill()
        leave(0)


class _SecondHalf:
    """Has the steps of this process go on from those of the first, and sees what the program has put back."""

    def __init__(self, cut: Checkpoint, probe: Probe) -> None:
        self._cut = cut
        self._probe = probe
        self._record: dict[str, Any] = {}
        self._seen: set[tuple[str, str]] = set()

    def begin(self) -> None:
        """Count on from where the first process was ended."""
        cut, probe = self._cut, self._probe
        try:
            text = (cut.directory / RECORD).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise TargetError(
                "The program wrote its checkpoint in one run, and not in another one.",
                why="it must be reproducible, or write it after a number of steps",
            ) from None
        self._record = json.loads(text)
        probe.steps = cut.steps = self._record["steps"]
        probe.losses[:] = self._record["losses"]
        probe.between = self._until_trained

    def _until_trained(self, event: str) -> None:
        """Before the first backward or step: what is emulated goes on where it was at the like event."""
        from repro_audit.probe.digest.generators import ambient

        self._seen.update((name, bits.hex()) for name, bits in ambient())
        if event == self._record["event"]:
            for name, (_, go_on) in self._cut.emulated.items():
                go_on(self._record["emulated"][name])
        if event == "begin":
            self._note_loader()
        if event in {"backward", "step"}:
            self._probe.between = None
            self._conclude()

    def _note_loader(self) -> None:
        """Keep the line that begins to read a loader, the last before training goes on."""
        file, line = users_place()
        if file is not None:
            self._cut.origins["position"] = _origin((file, line or 0, None))

    def _conclude(self) -> None:
        saved: dict[str, list[str]] = self._record["generators"]
        self._cut.generators = [
            name
            for name, states in saved.items()
            if not any((name, bits) in self._seen for bits in states)
        ]
        self._cut.origins.update(_makers())


def _makers() -> dict[str, Any]:
    """Where the program makes its optimizer and its scheduler."""
    import torch
    from torch.optim.lr_scheduler import LRScheduler

    from repro_audit.trial.driver.origins import made

    kinds = {"scheduler": LRScheduler, "optimizer": torch.optim.Optimizer}
    found = {}
    objects = [each for each in gc.get_objects() if issubclass(type(each), tuple(kinds.values()))]
    for kind, base in kinds.items():
        names = {type(each).__name__ for each in objects if issubclass(type(each), base)}
        place = made(names)
        if place is not None:
            found[kind] = _origin(place)
    return found


def _origin(place: tuple[str, int, str | None]) -> dict[str, Any]:
    """A line, as the survey has it."""
    file, line, function = place
    code = linecache.getline(file, line).strip()
    return {"file": file, "line": line, "function": function, "code": code}
