"""A live line on stderr while trials run, with about the time that is left, and each finding once it is proven."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from math import ceil
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from repro_audit.report import text

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_BAR_WIDTH = 12
_DESCRIPTION_LIMIT = 60
_TELLING = 3
"""So many trials must have ended before they tell how long others take."""
_MINUTE = 60


class Progress:
    """Shows how many trials are done of those planned so far, about how long they take yet, and which are under way.

    Silent when quiet; where the stream is not a terminal that can redraw a line, only findings are printed. May be
    used from several threads.

    Args:
        quiet: show nothing.
        stream: stderr, unless a test asks for another one.
        clock: seconds since some moment.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._shown = (
            not quiet
            and self._stream.isatty()
            and os.environ.get("TERM") not in {"dumb", "unknown"}
        )
        self._lock = threading.Lock()
        self._running: dict[str, str] = {}
        self._done = 0
        self._planned = 0
        self._foreseen = 0
        self._clock = clock
        self._started = clock()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:  # `Self` is not in Python 3.10
        if self._shown:
            self._bar = _bar(self._stream)
            self._task = self._bar.add_task("", total=None, now="starting")
            self._bar.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _where: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def foresee(self, trials: int) -> None:
        """So many trials come if nothing differs, beside those planned so far."""
        with self._lock:
            self._foreseen = self._planned + trials
            self._update()

    def plan(self, trials: int) -> None:
        """So many more trials are about to run, whether they were foreseen or not."""
        with self._lock:
            self._planned += trials
            self._update()

    def begin(self, trial_id: str, description: str) -> None:
        """A trial starts; `description` says in words what it tries: `num-workers: 0`."""
        with self._lock:
            self._running[trial_id] = text.shortened(text.line(description), _DESCRIPTION_LIMIT)
            self._update()

    def end(self, trial_id: str) -> None:
        """A trial ended, in whatever way."""
        with self._lock:
            if self._running.pop(trial_id, None) is not None:
                self._done += 1
            self._update()

    def found(self, finding: str) -> None:
        """Print what is proven before its line is known, above the live line; a log keeps it too."""
        if self._quiet:
            return
        with self._lock:
            if self._bar is not None:
                self._bar.console.print(text.line(finding), markup=False, soft_wrap=True)
            else:
                print(text.line(finding), file=self._stream, flush=True)

    @property
    def line(self) -> str:
        """What the live line says: `12 of ~24 trials, ~40 s left  num-workers: 0 (+1)`."""
        newest = next(reversed(self._running.values()), "")
        others = f" (+{len(self._running) - 1})" if len(self._running) > 1 else ""
        total = f"~{self._total}" if self._foreseen else "?"
        return f"{self._done} of {total} trials{self._left}  {newest}{others}".rstrip()

    @property
    def _total(self) -> int:
        """As many again as were foreseen, each time that more are planned: what differs has to be followed up."""
        planned = max(self._planned, self._done + len(self._running))
        return self._foreseen * ceil(planned / self._foreseen) if self._foreseen else planned

    @property
    def _left(self) -> str:
        """As if the trials to come took as long as those that ended."""
        if not self._foreseen or self._done < _TELLING or self._done == self._total:
            return ""
        seconds = (self._clock() - self._started) / self._done * (self._total - self._done)
        shown = f"{ceil(seconds)} s" if seconds < _MINUTE else f"{round(seconds / _MINUTE)} min"
        return f", ~{shown} left"

    def _update(self) -> None:
        if self._bar is not None and self._task is not None:
            room = self._bar.console.width - _BAR_WIDTH - len(" 0:00:00  ")
            self._bar.update(
                self._task,
                completed=self._done,
                total=self._total or None,
                now=text.shortened(self.line, max(room, 0)),
            )


def _bar(stream: TextIO) -> Bar:
    """A bar that vanishes when it is stopped; rich is imported here, where it is needed."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    return RichProgress(
        BarColumn(bar_width=_BAR_WIDTH),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[now]}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis"),
        ),
        console=Console(file=stream, highlight=False, emoji=False),
        transient=True,
        redirect_stdout=False,
        expand=False,
    )
