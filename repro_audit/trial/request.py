"""What the audit asks of a trial: plain data that crosses the process border as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from repro_audit.context.checkpoint import Half
from repro_audit.isolation.sandbox import Tree
from repro_audit.storage.border import dumps, loads
from repro_audit.storage.facts import Cut, Key
from repro_audit.target import Target

FIRST = "first"
TEMPORARY = "tmp"
"""In a trial's directory: what its programs make that is not to last."""
FACTS = "facts.json"
"""In a trial's directory: what it learnt."""

BEGUN = "begun"
"""In a trial's directory: an empty file, made at its first step."""
DEFECT = "defect.txt"
"""In a trial's directory: the traceback of an error of the tool's own."""
VALUES = "values"
"""In a trial's directory: the values that were asked for."""
STACKS = "stacks.txt"
"""In a trial's directory: where each of its threads was when it ran out of time."""


TERMINATE_SECONDS = 15.0
"""How long a command that has processes on other machines may take to end them."""
ENDLESS = 1 << 40
"""Steps that no trial makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The steps in which a trial observes every op and line, and whether before them too."""

    first: int
    """0 has the loading of the program in it."""
    last: int
    """The trial ends after this step."""
    rank: int | None = None
    """Of several processes that train together, the one that is watched; None for all."""
    loading: bool = True
    """Keep what happened before `build()`; false where one of two runs is the second one of its process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a trial observes beside its trace."""

    capture: tuple[Key, ...] = ()
    """Observations, and outputs of ops, whose values are saved too."""
    window: Window | None = None
    """Where every op and line is observed; None for nowhere."""
    feed: tuple[Key, ...] = ()
    """Outputs of ops that are overwritten with the values that another trial saved."""
    fed_by: str = ""
    """The directory of those values."""
    sample: int = 0
    """If given, the trial is one to be recorded: so many elements of each outcome are saved, spread evenly, and what
    the program ran on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRequest:
    """One run of the target under one setting."""

    directory: Path
    """Where the trial writes its trace, facts and temporary files; its name is the trial's id."""
    target: Target
    tree: Tree
    seed: int
    steps: int
    """Optimizer steps after which it ends."""
    until_epoch: int | None = None
    """If given: it ends with this epoch of a training loader instead."""
    setting: dict[str, str] = field(default_factory=dict)
    """Source id to level, for every source of the catalogue that has a level in this trial."""
    watch: Watch = field(default_factory=Watch)
    plugins: dict[str, str] = field(default_factory=dict)
    """What to import for the sources of other packages, by their ids."""
    instant: int = 0
    """Noon of the audit's day, in seconds since 1970."""
    first: bool = False
    """Others are compared with it, and may go on from the tree that it leaves."""
    warm: bool = False
    """It finds the tree as the first trial left it."""
    first_run_wrote: tuple[str, ...] = ()
    """Files that the floor's trial left in the tree, relative to its root; empty where the tree is cold."""
    kept: bool = False
    """It may be kept for later audits, so that what it read outside of its tree is noted."""
    probed: bool = True
    """Observe the training; else only count its steps."""
    unpinned: dict[str, list[str]] = field(default_factory=dict)
    """What the floor's trial could not keep in force, so that no other need try: as in its facts."""
    temporary: tuple[Path, ...] = ()
    """Directories by whose paths a trial finds its directory for temporary files, where its tree is an overlay.

    All trials have them in common, each with its own files there: it goes by the first, a level of a source by another.
    """
    half: Half = "whole"
    """`second`: a process of its own has saved the first half in `first_half`, and this one goes on from there."""
    whole_epochs: bool = False
    """Take each epoch to its end, in the audit's own loop, however many batches that needs."""
    edited: dict[str, str] = field(default_factory=dict)
    """Files of the program, relative to the tree's root, that this trial finds with another text: a fix is tried."""
    first_tree: Tree | None = None
    """The tree of that other process; set where, and only where, this is a second half."""

    compiled: Path | None = None
    """What a trial compiled under such levels, to begin with; None where none did."""
    on_several: bool = False
    """Its command may start processes on several machines, which share its directory."""
    bystanders: tuple[tuple[str, ...], ...] = ()
    """Of a command: how interpreters were started that did not train in the floor's trial, and are left alone."""
    resume_args: tuple[str, ...] | None = None
    """With which a script goes on from a checkpoint of its own; None where nobody said how."""
    cut: Cut | None = None
    """Where its first half ends; set where, and only where, this is the half of one."""

    @property
    def most_steps(self) -> int:
        """How many steps the program is asked for; without end where an epoch ends it."""
        return self.steps if self.until_epoch is None else ENDLESS

    @property
    def first_half(self) -> Path:
        """The directory of the process that trains up to the checkpoint; this one's own where it is that process."""
        return self.directory / FIRST if self.half == "second" else self.directory

    def save(self) -> None:
        """Write `request.json` into the trial's directory."""
        (self.directory / "request.json").write_text(dumps(self), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> TrialRequest:
        """Read what `save` wrote."""
        request = loads(cls, (directory / "request.json").read_text(encoding="utf-8"))
        return replace(request, directory=directory)
