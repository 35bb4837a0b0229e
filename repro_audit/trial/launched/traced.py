"""One interpreter below a trial's command: the setting in force from its start, the probe once it imports torch.

What it learns it leaves in a directory of its own below the trial's, numbered in the order of starts. Whether it was
a process that trains shows at the end: by its steps.
"""

from __future__ import annotations

import _thread
import atexit
import dataclasses
import multiprocessing
import os
import platform
import random
import sys
import time
import traceback
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from repro_audit.errors import InternalError, TargetError
from repro_audit.isolation.processes import leave
from repro_audit.probe import files
from repro_audit.sources import of_trial
from repro_audit.storage.border import save
from repro_audit.storage.facts import Facts
from repro_audit.storage.trace import TraceWriter
from repro_audit.trial.child import (
    detailed_of,
    facts_of,
    in_force,
    listen_for_stacks,
    probe_of,
    seed_ambient,
    take_surveys,
)
from repro_audit.trial.driver.notes import Notes
from repro_audit.trial.driver.training import conclude
from repro_audit.trial.failure import failure_of
from repro_audit.trial.request import BEGUN, DEFECT, FACTS, STACKS, TrialRequest
from repro_audit.trial.spawned import context_of, settled

if TYPE_CHECKING:
    from types import TracebackType

    from repro_audit.isolation.sandbox import Tree
    from repro_audit.probe import Probe
    from repro_audit.probe.detail.session import Detailed

PROCESSES = "processes"
"""In a trial's directory: one directory a process, by number."""
ABOUT = "about.json"
"""In a process's directory: how it was started."""
PEERS_SECONDS = 5.0
"""How long a rank that has made all its steps stays for the others, which may still need what it has sent."""
POLL_SECONDS = 0.01
AWAY_SECONDS = 1.0
VARIABLES = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
"""Of torchrun, Open MPI, MPICH and srun: a process's rank, and how many there are."""
DEVICE = "device.txt"
"""In a trial's directory, until it is over: the device that its tree is on, of its own where that is an overlay."""
OUTSIDE = "outside.txt"
"""In a trial's directory: made by a process of the command that does not see the trial's tree."""

_trial: Traced | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an interpreter is among those of its trial."""

    pid: int
    host: str
    """The machine that it runs on: elsewhere its pid is another one's."""
    words: tuple[str, ...]
    """How it was started."""
    rank: int = 0
    world: int = 1
    """How many ranks there are; known at the end."""


def device_of(tree: Tree) -> str:
    """On which device this process sees a trial's tree; nothing where the tree is on none of its own."""
    return str(tree.root.stat().st_dev) if tree.kind == "overlay" else ""


def host() -> str:
    """This machine, and the space that its pids are in."""
    with suppress(OSError):
        return f"{platform.node()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - no path follows
    return platform.node()


def begin(directory: str) -> None:
    """Make a process of the trial of this interpreter, before any of the program's code runs."""
    global _trial  # noqa: PLW0603 - one interpreter, one trial
    own = _claim(Path(directory) / PROCESSES)
    try:
        request = TrialRequest.load(Path(directory))
        device = request.directory / DEVICE
        if not device.exists():  # the trial is over
            os._exit(1)
        if device_of(request.tree) != device.read_text(encoding="ascii"):
            # It would write to the user's files.
            (request.directory / OUTSIDE).touch()
            os._exit(1)
        _trial = Traced(request, own)
        _trial.begin()
    except BaseException:
        _fail(own)


def _claim(processes: Path) -> Path:
    """A directory that no other process has."""
    for number in count():
        with suppress(FileExistsError):
            place = processes / str(number)
            place.mkdir()
            about = About(pid=os.getpid(), host=host(), words=tuple(sys.orig_argv))
            save(about, place / ABOUT)
            return place
    raise AssertionError


def _fail(place: Path) -> NoReturn:
    """End: what failed is ours, and must not pass for the program's."""
    (place / DEFECT).write_text(traceback.format_exc(), encoding="utf-8")
    leave(InternalError.exit_code)


def _outlive_no_trial(device: Path) -> None:
    """End this process once its trial is over: on another machine nobody else would."""
    while device.exists():
        time.sleep(AWAY_SECONDS)
    os._exit(1)


def rank_here() -> int:
    """This process's rank as whoever started it has it: 0 where nobody tells."""
    return _told()[0] or _spawned() or 0


def _told() -> tuple[int, int]:
    """The rank and how many there are, as whoever started this process has it; 0 of 1 where nobody tells."""
    for rank, world in VARIABLES:
        with suppress(KeyError, ValueError):
            return int(os.environ[rank]), int(os.environ[world])
    return 0, 1


def _spawned() -> int | None:
    """Which of the processes this is that `multiprocessing` spawned; None where it has not.

    `torch.multiprocessing.spawn` counts ranks so. The name is there before the program's main module is imported.
    """
    kind, _, number = multiprocessing.current_process().name.rpartition("-")
    return int(number) - 1 if kind == "SpawnProcess" and number.isdecimal() else None


def _world() -> tuple[int, int]:
    """The rank, and how many there are."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return rank_here(), _told()[1]


def _prefix() -> str:
    """What names begin with, where several processes are meant to train together."""
    together = _told()[1] != 1 or _spawned() is not None
    return f"rank{rank_here()}." if together else ""


class Traced:
    """What this interpreter is to the trial."""

    def __init__(self, request: TrialRequest, place: Path) -> None:
        self.request = request
        self.own = dataclasses.replace(request, directory=place)
        """The request, as if the process's directory were the trial's."""
        self.place = place
        self.pid = os.getpid()
        self.context = dataclasses.replace(context_of(request), directory=place)
        self.notes = Notes(what="the command", trains_itself=True)
        self.probe: Probe | None = None
        self.detailed: Detailed | None = None
        self.trace: TraceWriter | None = None
        self.failure: BaseException | None = None
        self.started = time.monotonic()
        self._offset = 0
        """By how much the seeds are this rank's own."""
        self._stack = ExitStack()
        """Never left: the levels hold until the process ends."""

    def begin(self) -> None:
        """Put the setting in force; the rest waits for torch."""
        request, context = self.request, self.context
        if request.on_several:
            _thread.start_new_thread(_outlive_no_trial, (request.directory / DEVICE,))
        listen_for_stacks(request.directory / STACKS)
        self._hook = sys.excepthook
        sys.excepthook = self._excepthook
        atexit.register(self._guarded, self._end)
        if request.probed:
            log = self.place / "files.jsonl"
            files.install(request.tree.map(request.tree.root), log, outside=request.kept)
        self.sources = of_trial(request.plugins)
        for name, level in request.setting.items():
            self._stack.enter_context(in_force(self.sources[name], level, context))
        settled()
        for library in ("numpy", "torch"):
            context.when_imported(library, self._tell_ranks_apart)
        seed_ambient(context)
        if self._is_watched:
            self.detailed = detailed_of(self.own)
        if self.detailed is not None:
            self._stack.enter_context(self.detailed)
        context.when_imported("torch", self._observe)

    def _tell_ranks_apart(self) -> None:
        """Start each rank's generators elsewhere, as they are where nobody seeds; its rank is known by now."""
        rank, self._offset = rank_here() - self._offset, rank_here()
        if rank and self.context.setting:
            for library in self.context.seeds:
                self.context.seeds[library] += rank
            if "python" not in self.context.reseeds:
                random.seed(self.context.seeds["python"])

    @property
    def _is_watched(self) -> bool:
        """Whether each op and line is wanted of this process, as far as its rank is known by now."""
        window = self.request.watch.window
        return window is None or window.rank in {None, rank_here()} or _told() == (0, 1)

    def _observe(self) -> None:
        """Install the probe."""
        self.trace = TraceWriter(self.place / "trace")
        probe = self.probe = probe_of(
            self.own,
            self.context,
            trace=self.trace,
            detailed=self.detailed,
            trial=self.request.directory,
        )
        probe.prefix = _prefix()
        probe.begun, probe.enough = self._begun, lambda: self._guarded(self._enough)
        probe.install()

    def _begun(self) -> None:
        self.context.loading_seconds = time.monotonic() - self.started
        (self.request.directory / BEGUN).touch()

    def _guarded(self, what: Any) -> None:
        """Do what is ours; an error in it is none of the program's."""
        try:
            what()
        except BaseException:
            _fail(self.place)

    def _enough(self) -> None:
        """All steps are made: leave what is known, and end."""
        self._save()
        self._await_peers()
        leave(0)

    def _end(self) -> None:
        """The program came to its own end."""
        if os.getpid() == self.pid and self.probe is not None:
            self._save()

    def _save(self) -> None:
        probe = self.probe
        if probe is None or (self.place / FACTS).exists():
            return
        self.context.training_seconds = time.monotonic() - self.started
        facts = self._facts(probe) if self.failure is None else self._failed(self.failure, probe)
        rank, world = _world()
        words = tuple(sys.orig_argv)
        about = About(pid=self.pid, host=host(), words=words, rank=rank, world=world)
        save(about, self.place / ABOUT)
        facts.save(self.place / FACTS)

    def _failed(self, error: BaseException, probe: Probe) -> Facts:
        return Facts(steps=probe.steps, failure=failure_of(error, self.request))

    def _facts(self, probe: Probe) -> Facts:
        try:
            conclude(probe, self.notes)
        except TargetError as error:
            return self._failed(error, probe)
        if self.detailed is not None:
            self.detailed.save()
        if self.trace is not None:
            self.trace.close()
        sources = {name: self.sources[name] for name in self.request.setting}
        take_surveys(sources, self.context)
        return facts_of(self.context, self.notes, probe, self.request, fresh=True)

    def _await_peers(self) -> None:
        """Stay until the other ranks have made their steps too."""
        _, world = _world()
        until = time.monotonic() + PEERS_SECONDS
        facts = self.request.directory.glob(f"{PROCESSES}/*/{FACTS}")
        while world > 1 and len([*facts]) < world and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            facts = self.request.directory.glob(f"{PROCESSES}/*/{FACTS}")

    def _excepthook(
        self, kind: type[BaseException], error: BaseException, where: TracebackType | None
    ) -> None:
        self.failure = error
        self._hook(kind, error, where)
