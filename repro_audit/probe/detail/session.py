"""The detailed probe as a whole: what it writes of the process that trains, and of each DataLoader worker.

Importing this imports torch, which the plain probe leaves to the program.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

from repro_audit.probe import files
from repro_audit.probe.clock import Clock
from repro_audit.probe.detail.contents import Contents
from repro_audit.probe.detail.fetches import Fetches
from repro_audit.probe.detail.lines import Lines
from repro_audit.probe.detail.rng_log import RngLog
from repro_audit.probe.detail.sites import Homes, Sites
from repro_audit.storage.events import MAIN, NOTHING, TRUNCATED, DetailWriter, Kind
from repro_audit.storage.trace import Phase

if TYPE_CHECKING:
    MakeOps = Callable[..., "Operators"]

_MARK = int(Kind.MARK)


class Operators(Protocol):
    """What the op-level probe is to this one."""

    active: bool

    def install(self) -> None:
        """Be there, and write nothing until `active`."""

    def uninstall(self) -> None:
        """Leave torch as it was."""

    def step_ended(self) -> None:
        """The clock has moved to the next step."""

    def begin_again(self) -> None:
        """Another run of the program begins in this process."""

    def telling(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A call of a module that tells which one runs."""


@final
class Parts:
    """Writer, ledger, lines, fetches and files of one process."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock,
        ops: MakeOps | None,
        homes: Homes,
        options: Mapping[str, Any],
    ) -> None:
        self._directory = directory
        self.clock = clock
        self.writer = DetailWriter(directory)
        self.sites = Sites(self.writer.intern, homes)
        self.ledger = RngLog(writer=self.writer, clock=clock)
        self.lines = Lines(writer=self.writer, sites=self.sites, clock=clock, ledger=self.ledger)
        self.ops = (
            ops(
                writer=self.writer,
                sites=self.sites,
                clock=clock,
                drew=self.ledger.poll,
                **options,
            )
            if ops is not None
            else None
        )
        self.fetches = Fetches(writer=self.writer, clock=clock, settle=self.settle)
        self.contents = Contents(
            writer=self.writer, sites=self.sites, clock=clock, ours=directory.parents[1]
        )
        self.is_open = False

    def open(self, *, running: bool = True) -> None:
        """Begin to write rows; `running`: also of the program's frames that are running now."""
        self.is_open = self.fetches.on = True
        self.ledger.start()
        if self.ops is not None:
            self.ops.active = True
        self.lines.install(running=running)

    def close(self) -> None:
        """Write no more rows, of files excepted."""
        if not self.is_open:
            return
        self.settle()
        self.is_open = self.fetches.on = False
        if self.ops is not None:
            self.ops.active = False
        self.lines.uninstall()

    def settle(self) -> None:
        """Write down what generators did until now, on account of the line that is running."""
        if self.is_open:
            self.lines.poll()

    def flush(self) -> None:
        """See that what was written until now outlives the process."""
        self.writer.flush()
        if self.lines.truncated:
            (self._directory / TRUNCATED).write_text(self.lines.truncated, "utf-8")

    def abandon(self) -> None:
        """In a forked child: leave everything as it is, and write nothing."""
        self.is_open = self.fetches.on = False
        self.lines.end("a forked child")


@final
class Detailed:
    """Writes what a training does in the steps of a window, from `install` to `uninstall`, in this thread.

    Args:
        directory: of the trial's detail; made, with one a process below it.
        ops: makes the op-level probe, where that is wanted: `repro_audit.probe.detail.ops.Ops`.
        from_step: the first step of the window; 0 for all that comes before it too, the program's own import included.
        to_step: the last one.
        homes: by directory below which this trial finds the tree: where the tree is.
        options: passed to `ops`: `values`, `capture`, `feed`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        ops: MakeOps | None = None,
        from_step: int,
        to_step: int,
        homes: Homes | None = None,
        **options: Any,
    ) -> None:
        self._directory = directory
        self._homes = homes or {}
        self._from, self._to, self._last = from_step, to_step, to_step
        self.clock = Clock()
        self._parts = Parts(
            directory / MAIN, clock=self.clock, ops=ops, homes=self._homes, options=options
        )
        self._make_ops = ops
        self.ops = self._parts.ops
        self._observations: dict[int, int] = {}
        """By the id of a name in the trace: its id here."""

    @property
    def window_open(self) -> bool:
        """Whether rows are written now."""
        return self._parts.is_open

    @property
    def truncated(self) -> str:
        """Why lines ended early; empty where they did not."""
        return self._parts.lines.truncated

    def install(self) -> None:
        """Be there, and open the window if it begins at the beginning."""
        global _installed  # noqa: PLW0603 - a forked child finds here what to leave alone
        _installed = self
        if self.ops is not None:
            self.ops.install()
        files.detail(self._parts.contents.opened)
        if self._from == 0:
            self._open()

    def uninstall(self) -> None:
        """Leave everything as it was, with all rows written."""
        global _installed  # noqa: PLW0603 - as in `install`
        self.stop()
        files.detail(None)
        if self.ops is not None:
            self.ops.uninstall()
        self.save()
        self._parts.writer.close()
        _installed = None

    def save(self) -> None:
        """Have all rows so far on disk."""
        self._parts.flush()
        self._parts.writer.flush()

    def __enter__(self) -> Detailed:
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstall()

    def begin_again(self) -> None:
        """Forget all so far: another run of the program begins in this process."""
        self._close()
        self._parts.writer.clear()
        if self.ops is not None:
            self.ops.begin_again()
        self._to = self._last
        self.clock.step, self.clock.phase = 0, int(Phase.INIT)
        if self._from == 0:
            self._open()

    def stop(self) -> None:
        """Close the window: the training is over."""
        self._to = -1
        self._close()

    def step_ended(self, step: int) -> None:
        """Go on to the step after this one."""
        self.clock.step = step + 1
        if self.ops is not None:
            self.ops.step_ended()
        if step >= self._to:
            self._close()
        elif step + 1 >= self._from and not self.window_open:
            self._open()

    def watch_fetcher(self, fetcher: Any, *, loader: int, epoch: int) -> None:
        """Write of each batch that a loader without workers makes."""
        self._parts.fetches.watch(fetcher, loader=loader, epoch=epoch, worker=0)

    def for_workers(self) -> WorkerDetail | None:
        """What workers that start now shall do; None once they would fetch for steps after the window alone."""
        if self.clock.step > self._to:
            return None
        return WorkerDetail(
            directory=str(self._directory),
            ops=self._make_ops,
            step=self.clock.step,
            homes=self._homes,
        )

    def observed(self, step: int, phase: int, name: int, texts: Iterable[str]) -> None:
        """An observation is about to be made: `name` is its place among the texts of the trace."""
        if not self.window_open:
            return
        writer = self._parts.writer
        known = self._observations.get(name)
        if known is None:
            known = writer.intern(next(islice(texts, name, None)))
            self._observations[name] = known
        nothing = self._parts.sites.nowhere
        writer.add(_MARK, step, phase, known, nothing, nothing, nothing, NOTHING, NOTHING)

    def _open(self) -> None:
        self._parts.open()

    def _close(self) -> None:
        self._parts.close()

    def abandon(self) -> None:
        """In a forked child: write nothing."""
        self._to = -1
        self._parts.abandon()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDetail:
    """What a worker shall write; spawn pickles it."""

    directory: str
    ops: MakeOps | None
    step: int
    """Under way when the worker started: it fetches for this one and for those to come, and knows no more."""
    homes: Homes = field(default_factory=dict)
    """As `Detailed` has them."""

    def begin(self, *, loader: int, epoch: int, worker: int) -> Parts:
        """In a worker: begin to write, a batch at a time, since it will be killed in the end."""
        directory = Path(self.directory) / f"worker-{loader}-{epoch}-{worker}"
        clock = Clock(self.step, int(Phase.DATA))
        parts = Parts(directory, clock=clock, ops=self.ops, homes=self.homes, options={})
        if parts.ops is not None:
            parts.ops.install()
        parts.fetches.ended = parts.flush
        files.detail(parts.contents.opened)
        # What a forked worker has on its stack are the lines that made the loader start it: they never go on here.
        parts.open(running=False)
        return parts


_installed: Detailed | None = None


def _abandon_in_child() -> None:
    files.detail(None)
    if _installed is not None:
        _installed.abandon()


os.register_at_fork(after_in_child=_abandon_in_child)
