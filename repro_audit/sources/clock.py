"""The time of day, or how long something took, decides the result.

## What it does
The audit gives the program, and the installed packages that it calls, a clock of the audit's: it starts at noon of the
day of the audit (pinned), or seconds, days or months later. It ticks at every reading, and through every `time.sleep`,
so what waits for time to pass gets on: by less than a millisecond at first, and more where the same line reads again
and again. At the later levels the ticks are longer, and uneven. The clock answers for
`time.time`, `monotonic`, `perf_counter`, `process_time`, `thread_time` (all with `_ns` too), `clock_gettime`,
`localtime`, `gmtime`, `ctime`, `asctime` and `strftime`, `datetime.now`, `utcnow` and `today`, and `date.today`.
Another result convicts it, and the report lists the lines that read it, or called a library that does. *Same*: all four
clocks give the same. The standard library, PyTorch, and packages that wait for others or log see the real time, so
their timeouts hold. Not seen are clocks read in C code, such as `np.datetime64("now")`, and by a library's own threads.

## Why it breaks reproducibility
A run starts at another time than the one before, and no two take equally long. A seed made from the clock differs in
each run. A date that decides which rows are recent, or which part of the data is the test set, differs from one
day to the next. Training that stops when its time is up stops after another number of steps. Time that is only
logged does no harm.

## Example
The seed is the time.

```python
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build():
    torch.manual_seed(int(time.time()))
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=8)
```

## Use instead
Take the seed from the caller. The time may be logged.

```python
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    print("started at", time.ctime(), "with the seed", seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=8)
```

## References
- Python: `time`: <https://docs.python.org/3/library/time.html>
- Python: `datetime.now`: <https://docs.python.org/3/library/datetime.html#datetime.datetime.now>
- Lightning: `Timer`, which stops training when its time is up:
  <https://lightning.ai/docs/pytorch/stable/api/lightning.pytorch.callbacks.Timer.html>
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.fixes.remedies import Instead
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources._program import Lines, evidence, logged, noted
from repro_audit.sources.emulation.callers import asker
from repro_audit.sources.emulation.ticking import SECOND, Clock, Pace
from repro_audit.storage import reads
from repro_audit.storage.facts import Facts

ID = "clock"
LOG = "clock.jsonl"
DAY = 86_400 * SECOND
PINNED = "noon today"


PACES = {
    PINNED: Pace(later=0, tick=SECOND // 65_536, patience=64, longest=SECOND // 64),
    # With fractions of seconds that no other level has: some programs look at nothing else.
    "seconds later": Pace(
        later=17_123_456_789,
        tick=SECOND // 16_384,
        beats=(7, 6, 5, 4, 3, 2, 1),
        patience=64,
        longest=SECOND,
    ),
    "days later": Pace(later=3 * DAY + DAY // 3 + 345_678_912, tick=SECOND // 16_384, factor=8),
    "months later": Pace(later=400 * DAY + 567_891_234, tick=SECOND // 2048, factor=512),
}
"""Where ticks are multiplied, a time limit of any length is reached after some steps, not before the first."""


def levels(facts: Facts) -> Levels | str:
    """The later clocks, where the program reads one."""
    if not facts.survey.get(ID):
        return facts.seen(
            "neither the program nor a library that it calls was seen to read a clock"
        )
    return Levels(varied=tuple(level for level in PACES if level != PINNED))


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Put the level's clock before the program's own code."""
    clock = Clock(PACES[level], trial.instant, trial.processes)
    trial.on_run.append(clock.restart)
    trial.checkpoint.emulated[ID] = (clock.seen, clock.go_on)
    with Replacements() as replacements:
        face = _Face(clock, Lines(trial.directory / LOG), replacements)
        face.counters()
        face.sleeping(trial)
        face.calendars()
        face.datetimes()
        yield


class _Face:
    """Shows the clock to the program's own code and to libraries that it calls, and the real time to all else."""

    def __init__(self, clock: Clock, lines: Lines, replacements: Replacements) -> None:
        self._clock = clock
        self._lines = lines
        self._replacements = replacements

    def counters(self) -> None:
        """Functions that give a number."""
        clock = self._clock
        reads = {
            "time": clock.wall,
            "monotonic": clock.monotonic,
            "perf_counter": clock.monotonic,
            "process_time": clock.elapsed,
            "thread_time": clock.elapsed,
        }
        for name, read in reads.items():
            self._show(name, lambda read=read: read() / SECOND)
            self._show(f"{name}_ns", read)
        self._show("clock_gettime", lambda number: self._gettime(number) / SECOND, arguments=1)
        self._show("clock_gettime_ns", self._gettime, arguments=1)

    def sleeping(self, trial: TrialContext) -> None:
        """`sleep`."""
        clock = self._clock

        def slept(seconds: float, /) -> None:
            trial.sleep(seconds)
            if asker(sys._getframe(1), _THROUGH) is not None:
                clock.sleep(int(float(seconds) * SECOND))

        self._replacements.attribute(time, "sleep", slept)

    def calendars(self) -> None:
        """Functions that take a time, and read the clock where they are given none."""
        localtime, strftime, asctime = time.localtime, time.strftime, time.asctime
        for name in ("localtime", "gmtime", "ctime"):
            original = getattr(time, name)
            self._show(name, lambda original=original: original(self._seconds()))
        self._show("strftime", lambda form: strftime(form, localtime(self._seconds())), arguments=1)
        self._show("asctime", lambda: asctime(localtime(self._seconds())))

    def datetimes(self) -> None:
        """Methods of `date` and `datetime`."""
        utc = dt.timezone.utc
        self._show_method(dt.date, "today", lambda cls: cls.fromtimestamp(self._seconds()))
        self._show_method(
            dt.datetime, "now", lambda cls, tz=None: cls.fromtimestamp(self._seconds(), tz)
        )
        self._show_method(
            dt.datetime,
            "utcnow",
            lambda cls: cls.fromtimestamp(self._seconds(), utc).replace(tzinfo=None),
        )

    def _seconds(self) -> float:
        return self._clock.wall() / SECOND

    def _gettime(self, number: int) -> int:
        if number in _named("CLOCK_REALTIME", "CLOCK_TAI"):
            return self._clock.wall()
        if number in _named("CLOCK_PROCESS_CPUTIME_ID", "CLOCK_THREAD_CPUTIME_ID"):
            return self._clock.elapsed()
        return self._clock.monotonic()

    def _is_for_program(self, frame: FrameType | None) -> bool:
        users = asker(frame, _THROUGH)
        if users is not None:
            self._lines.note(users)
            self._clock.tick(users)
        return users is not None

    def _show(self, name: str, read: Callable[..., Any], arguments: int = 0) -> None:
        """Have a function of `time` answer the program with `read`, where it is given as many arguments."""
        original = getattr(time, name, None)
        if original is None:  # not on this system
            return

        def function(*given: Any) -> Any:
            answer = original(*given)  # which has the words for what may not be given
            asks = len(given) == arguments or (name in _OPTIONAL and given[0] is None)
            if asks and self._is_for_program(sys._getframe(1)):
                return read(*given[:arguments])
            return answer

        self._replacements.function(time, name, function)

    def _show_method(self, cls: type, name: str, read: Callable[..., Any]) -> None:
        """Have a class method answer the program with `read`."""
        original = cls.__dict__[name]

        def method(cls: type, *given: Any, **named: Any) -> Any:
            if self._is_for_program(sys._getframe(1)):
                return read(cls, *given, **named)
            return original.__get__(None, cls)(*given, **named)

        self._replacements.method(cls, name, classmethod(method))


_THROUGH = ("gzip", "zipfile", "timeit")
"""Modules of the standard library that put the time into what they give; others only wait by it."""
_OPTIONAL = ("localtime", "gmtime", "ctime")
"""These take None as the time, for now."""


def _named(*names: str) -> tuple[int, ...]:
    """The clocks of these names that this system has."""
    return tuple(getattr(time, name) for name in names if hasattr(time, name))


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Say how far apart two runs must be, and name the lines that read a clock."""
    apart = " and ".join(level.level for level in judgement.levels if level.diverged)
    return Verdict.of(
        judgement,
        held="the program reads the clock, and gives the same at any time",
        broke=f"the program reads the clock, and gives another result {apart or 'at another time'}",
        evidence=evidence(facts.survey.get(ID) or (), "reads the clock"),
    )


def fix(_facts: Facts) -> Fix:
    """Make the time an argument."""
    return Fix(
        summary="Let the time decide nothing: take the seed from the caller, fix the date that data is chosen by, "
        "and stop after a number of steps. Logging the time does no harm.",
        snippet="torch.manual_seed(seed)  # not int(time.time())\n"
        "newest = datetime.date(2025, 1, 31)  # not datetime.date.today()\n"
        "for step in range(steps):  # not while time.monotonic() < deadline\n"
        "    ...",
    )


REMEDIES = (
    Instead(
        calls=(
            *("time.time", "time.time_ns", "time.perf_counter", "time.perf_counter_ns"),
            *("time.monotonic", "time.monotonic_ns", "time.process_time", "time.localtime"),
            *(".now", ".utcnow", ".today", ".timestamp"),
        ),
        template="{seed}",
        arguments=None,
        within=("seed", "randomstate", "default_rng", "random.random"),
        summary="Seed with a number, not with the time.",
    ),
)


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    reads=frozenset((reads.CLOCK,)),
    lines=noted,
    fix=fix,
    remedies=REMEDIES,
    survey=logged(LOG),
)
