"""What a trial learnt of the program that it ran, as plain data that crosses the process border as JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from repro_audit.storage.border import loads, save

Json = Any
"""Anything that `json` writes."""

Key: TypeAlias = tuple[int, int, str, int]
"""An observation's place in a trace: step, phase, name, occurrence."""

RANK = r"rank\d+\."
"""How the names of a process begin that trains together with others."""


def of_rank(name: str) -> tuple[int | None, str]:
    """An observation's rank, None for the only process there is, and its name there."""
    found = re.match(RANK, name)
    return (int(found[0][4:-1]), name[found.end() :]) if found else (None, name)


READ_AT_IMPORT = (
    *("OMP_", "GOMP_", "KMP_", "OPENBLAS_", "BLIS_", "NPY_", "MKL_THREADING_LAYER"),
    *("PYTORCH_JIT", "PYTORCH_ENABLE_", "TORCH_", "TORCHINDUCTOR_", "TORCHDYNAMO_"),
)
"""How variables begin that PyTorch and what it loads read when they are loaded."""
READ_AT_FIRST_KERNEL = ("ATEN_", "ONEDNN_", "DNNL_", "MKL_")
"""How those begin that are read by the first kernel, which trials are forked before: of some versions, after."""

GENERATORS = {
    "python": "Python's random",
    "numpy": "NumPy's global generator",
    "torch": "PyTorch's CPU generator",
}
"""The generators that a program need not make, in words; those of CUDA devices apart."""
AMBIENT = frozenset(GENERATORS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How the target itself failed, in its own words."""

    what: str
    """The exception as one line, or how the process ended."""
    traceback: str = ""
    """The target's traceback without the tool's frames."""
    why: str = ""
    """For a target of the wrong form: why that is likely."""
    next_step: str = ""
    """What to write instead; may have several lines."""
    stopped_training: bool = False
    """The program ran, but no optimizer step was seen."""
    elsewhere: bool = False
    """It was about to train in processes that it spawns, which are seen only where it runs as a command."""
    whole: str = ""
    """The traceback with the tool's frames."""
    missing: str = ""
    """A file that it did not find."""
    ours: bool = False
    """It was raised in a frame of the tool, be it for what the target handed on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """After which of its own writes a program is ended, to go on from there in a new process."""

    steps: int
    likeness: int
    """How much it looks like a checkpoint, as `context.checkpoint.Likeness`."""
    writes: int
    """How many writes of that likeness there have been, this one among them."""
    file: str
    """The program's file that writes, relative to the tree where it is below it; empty where none is on the stack."""
    line: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a trial learnt: of the program, of the machine, and of itself."""

    steps: int = 0
    runs: int = 1
    """How often the program ran in this process; the last run was traced."""
    losses: tuple[float, ...] = ()
    finite: tuple[bool | None, ...] = ()
    """As `Stakes` of the probe has it; likewise the next three."""
    gradients: bool | None = None
    holds: bool | None = None
    rate: bool | None = None
    assumptions: tuple[str, ...] = ()
    accepts_seed: bool = False
    ended: bool = False
    """The program trains by itself and came to its own end, so a longer trial would see nothing more."""
    trains_itself: bool = False
    """Nobody calls it who could seed for it: it is a training procedure, a trainer or a script."""
    runs_once: bool = False
    """It is a script, which runs once in its process; the cells of a notebook may run again in theirs."""
    notebook: bool = False
    """It is a notebook: processes that begin as new interpreters find nothing of what its cells define."""
    reseeds: tuple[str, ...] = ()
    """Ambient generators (`python`, `numpy`, `torch`, `cuda`) that the program itself seeds."""
    loaders: tuple[dict[str, Json], ...] = ()
    """Each DataLoader that was iterated: `num_workers`, `batch_size`, `persistent`, `dataset`."""
    samples_seen: int = 0
    samples_total: int | None = None
    batches_seen: int = 0
    batches_per_epoch: int | None = None
    epochs: int = 0
    left_early: int | None = None
    """After how many steps the audit left an epoch before its end; None where it left none."""
    threads: int = 0
    cuda: str = ""
    """Names of the CUDA devices, comma-separated; empty where the program used none."""
    cuda_idle: bool = False
    """There is a CUDA device, and the program did not use it."""
    cuda_share: float = 0.0
    """Of a CUDA device's memory, the largest part that the program held at a time."""
    torch: str = ""
    machines: tuple[str, ...] = ()
    """Of a cluster: the kinds of machine that trials can run on, the first trial's own first."""
    written: tuple[str, ...] = ()
    """Files below the tree that the trial created, changed or deleted."""
    own_files: tuple[str, ...] = ()
    """The program's own files below the tree that were loaded, relative to it."""
    fingerprint: dict[str, str] = field(default_factory=dict)
    """What it ran on, where that was asked for: as `storage.fingerprint` has it."""
    cut: Cut | None = None
    """Where a script can be ended that goes on from its own checkpoint; None where it wrote none."""
    modules: tuple[str, ...] = ()
    """Modules from site-packages and the standard library that were loaded at the end."""
    unseen: tuple[str, ...] = ()
    """Forms of values that were met, but whose contents could not be read and so were not compared."""
    survey: dict[str, Json] = field(default_factory=dict)
    """What each source found, by its id."""
    unpinned: dict[str, list[str]] = field(default_factory=dict)
    """By a source's id, the program's lines that did what its level should keep them from doing."""
    diverged: Json = None
    """For a source's `judge`: what its survey found in the run that differed."""
    varied: Json = None
    """For a source's `judge`: what its survey found in its first varied run, where that did not differ."""
    options: dict[str, Json] = field(default_factory=dict)
    """For a source's own functions: what the user chose of its options, by name; see `Option.of`."""
    set_before_torch: tuple[str, ...] = ()
    """Variables that the program sets before it imports PyTorch, which may read them then."""
    training_seconds: float = 0.0
    loading_seconds: float = 0.0
    """From the program's start to the end of its first step; 0 where it made none."""
    step_seconds: float = 0.0
    """From one optimizer step to the next, the median; 0 where there were too few."""
    failing: dict[str, str] = field(default_factory=dict)
    """Plugins that could not be in force, by their id, and why."""
    lacking: dict[str, str] = field(default_factory=dict)
    """By a source's id: what of PyTorch's internals it takes, and the installed one lacks."""
    ranks: int = 1
    """How many processes trained together."""
    bystanders: tuple[tuple[str, ...], ...] = ()
    """Of a command: how interpreters were started that did not train."""
    failure: Failure | None = None

    @property
    def set_for_import(self) -> tuple[str, ...]:
        """What of `set_before_torch` a fork of an interpreter that has imported PyTorch would not see in force."""
        return tuple(name for name in self.set_before_torch if name.startswith(READ_AT_IMPORT))

    @property
    def within(self) -> str:
        """How far the trial went: `in the first 8 steps`; empty where nothing ran."""
        steps = f"{self.steps} step{'s' if self.steps != 1 else ''}"
        if self.ended:
            return f"in all of its {steps}"
        return f"in the first {steps}" if self.steps else ""

    def seen(self, what: str) -> str:
        """What was or was not seen, and how far that goes."""
        return f"{what} {self.within}".rstrip()

    @property
    def seeds_something(self) -> bool:
        """Whether the program takes a seed, or seeds some ambient generator."""
        return self.accepts_seed or bool(self.reseeds)

    @property
    def never_seeded(self) -> bool:
        """Whether nobody seeds: neither the program, which trains by itself, nor so a caller."""
        return self.trains_itself and not self.seeds_something

    @property
    def no_cuda(self) -> str:
        """Why nothing was tried on a CUDA device, where the program used none."""
        return "the program uses no CUDA device" if self.cuda_idle else "no CUDA device"

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        save(self, path)

    @classmethod
    def load(cls, path: Path) -> Facts:
        """Read what `save` wrote."""
        return loads(cls, path.read_text(encoding="utf-8"))
