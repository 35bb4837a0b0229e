"""What a source may touch in a trial's process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_audit.context.checkpoint import Checkpoint
from repro_audit.context.imports import when_imported
from repro_audit.context.numbering import Numbering
from repro_audit.storage.facts import Json
from repro_audit.torch_internals import Internal, lacking


@dataclass(slots=True, kw_only=True)
class TrialContext:
    """One trial in its own process, before and while the target runs."""

    seed: int
    """What `build(seed=...)` is given."""
    setting: dict[str, str]
    directory: Path
    """The trial's own directory, outside the user's tree."""
    root: Path
    """The user's tree, as this trial sees it."""
    elsewhere: Path | None = None
    """Where `root` is found too, by another path; None where it can not be had twice."""
    temporary: tuple[Path, ...] = ()
    """By which paths the directory for temporary files is found: by the first, unless a level says otherwise."""
    start: Path | None = None
    """Where a relative path of the target begins; None for the working directory."""
    instant: int = 0
    """Noon of the audit's day, in seconds since 1970: the same in all trials of an audit."""
    first_run_wrote: tuple[str, ...] = ()
    """What the first run wrote, relative to `root`, where the tree is the one that it left."""
    seeds: dict[str, int] = field(default_factory=dict)
    """Where each ambient generator starts: `python`, `numpy`, `torch`, `cuda`; `seed` unless a level says otherwise."""
    processes: Numbering = field(default_factory=Numbering)
    """Tells the processes of the run under way apart."""
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    """Where the training can be cut in two."""
    runs: int = 1
    """How often the program runs in this process; the last run is the one that is traced."""
    on_run: list[Callable[[], None]] = field(default_factory=list)
    """Called before each run of the program in this process."""
    on_built: list[Callable[[Any], None]] = field(default_factory=list)
    """Called with the model (or None) after each `build`, before training."""
    on_met: list[Callable[[Any], None]] = field(default_factory=list)
    """Called with each module that runs by itself and that `build` did not return, before it first runs."""
    models: list[Any] = field(default_factory=list)
    """The models that `build` returned, for surveys."""
    reseeds: list[str] = field(default_factory=list)
    """Ambient generators that the program seeded itself, in order."""
    seedings: list[tuple[str, str, int]] = field(default_factory=list)
    """Where it did that: the generator, the file and the line."""
    seeded_at_import: list[str] = field(default_factory=list)
    """Those that it seeded as it was imported, and not again in its last run."""
    set_before_torch: list[str] = field(default_factory=list)
    """Variables that the program sets before it imports PyTorch, which reads them then."""
    training_seconds: float = 0.0
    """How long the last run took."""
    loading_seconds: float = 0.0
    """How long it took to come to its first step."""
    sleep: Callable[[float], None] = time.sleep
    """Lets a thread of the program sleep; whoever keeps threads in order puts another way here."""
    notes: dict[str, Json] = field(default_factory=dict)
    """Findings that a source keeps for its survey, by its id."""

    unpinned: dict[str, list[str]] = field(default_factory=dict)
    """What happened though a source's level should have kept it from happening: by its id, the program's lines."""
    failing: dict[str, str] = field(default_factory=dict)
    """Plugins that could not be in force, by their id, and why."""

    lacking: dict[str, str] = field(default_factory=dict)
    """By a source's id: what of PyTorch's internals it takes, and the installed one lacks."""
    internals: tuple[Internal, ...] = ()
    """What of PyTorch's the source takes that is being put in force."""

    def __post_init__(self) -> None:
        for library in ("python", "numpy", "torch", "cuda"):
            self.seeds.setdefault(library, self.seed)
        self.checkpoint.emulated["processes"] = (self.processes.started, self.processes.go_on)

    def when_imported(self, module: str, callback: Callable[[], None]) -> None:
        """Call `callback` once the top-level `module` is loaded, by us or by the program.

        Not where PyTorch lacks internals that the source takes: it is not exercised then.
        """
        needed = self.internals

        def unless_lacking() -> None:
            if not lacking(needed):
                callback()

        when_imported(module, unless_lacking if needed and module == "torch" else callback)

    def met(self, module: object) -> None:
        """Tell the sources that a module is about to run for the first time."""
        for callback in self.on_met:
            callback(module)

    def built(self, model: object) -> None:
        """Tell the sources that `build` returned."""
        self.models.append(model)
        for callback in self.on_built:
            callback(model)
