"""Which thread comes first decides the result.

## What it does
The audit lets the program's threads run in the order in which they were started: each begins when the one before has
ended or waits, the tasks of a `ThreadPoolExecutor` run one after the other, and `as_completed` yields them in that
order (pinned). Then the later ones go first; then all run as written, with the interpreter switching between them as
often as it can, beside a process that keeps a core busy. Each is run several times, the report says how many of how
many runs differed, and one that differs again convicts it. *Held*: all gave the same; a race that none of them met is
not ruled out. *Not exercised* where the program starts no threads. Threads that a library starts for itself, and the
pools of `multiprocessing.pool` and `joblib`, are left alone.

## Why it breaks reproducibility
The operating system and the interpreter's lock decide which thread runs. Samples that threads put into one queue or
list, futures taken by `as_completed`, and numbers that threads draw from one generator come in the order of the
threads' arrival: by the load of the machine, another one in each run.

## Example
Batches are prepared by threads, and trained on as they get ready.

```python
from concurrent.futures import ThreadPoolExecutor, as_completed

import torch
from torch import nn


def prepare(number):
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(number))
    return x, x.sum(1, keepdim=True)


def build(seed):
    torch.manual_seed(seed)
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(prepare, number) for number in range(16)]
        batches = [job.result() for job in as_completed(jobs)]
    return nn.Linear(8, 1), batches
```

## Use instead
Threads prepare, and results are taken in the order in which they were asked for.

```python
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn


def prepare(number):
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(number))
    return x, x.sum(1, keepdim=True)


def build(seed):
    torch.manual_seed(seed)
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(prepare, range(16)))
    return nn.Linear(8, 1), batches
```

## References
- Python: `concurrent.futures.as_completed`:
  <https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.as_completed>
- Python: `sys.setswitchinterval`: <https://docs.python.org/3/library/sys.html#sys.setswitchinterval>
- NumPy: multithreaded generation, a generator for each thread:
  <https://numpy.org/doc/stable/reference/random/multithreading.html>
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from repro_audit.fixes.remedies import Instead, Rename
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources._load import busy_process
from repro_audit.sources._threads import Schedule, scheduled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from repro_audit.experiment import Judgement
    from repro_audit.facts import Facts, Json
    from repro_audit.trial.context import TrialContext

ID = "thread-timing"
PINNED, LAST_FIRST, RELEASED = "in order", "last first", "as written, under load"
SWITCH_OFTEN = 1e-5


def levels(facts: Facts) -> Levels | str:
    """The other way round, and released; several times, as not all that follows is forced."""
    if not facts.survey.get(ID):
        return facts.seen("no thread was seen to start")
    return Levels(varied=(LAST_FIRST, RELEASED), race=True, forced=True)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Schedule the program's threads; load the machine only once there are any."""
    with ExitStack() as stack:

        def began() -> None:
            if level != PINNED:
                stack.callback(sys.setswitchinterval, sys.getswitchinterval())
                sys.setswitchinterval(SWITCH_OFTEN)
            if level == RELEASED:
                stack.callback(_end, busy_process(), os.getpid())

        schedule = Schedule(last_first=level == LAST_FIRST, began=began)
        trial.notes[ID] = schedule.places
        stack.enter_context(scheduled(schedule, gated=level != RELEASED))
        yield


def _end(busy: int, started_by: int) -> None:
    if os.getpid() == started_by:
        os.kill(busy, signal.SIGKILL)
        os.waitpid(busy, 0)


def survey(trial: TrialContext) -> Json:
    """The lines that start threads, or hand tasks to them."""
    return list(trial.notes.get(ID, ()))


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Say how many of how many runs differed, and where the threads come from."""
    differed, total = judgement.race or (0, 0)
    if judgement.status == "broke":
        return Verdict(
            status="broke",
            reason=f"{differed} of {total} runs with the threads in another order, or left to themselves, differ",
            evidence=tuple(
                f"threads are started at {where}" for where in facts.survey.get(ID) or ()
            ),
        )
    held = "threads in another order, or left to themselves under load, change nothing"
    return Verdict(status=judgement.status, reason=judgement.note or held)


def fix(_facts: Facts) -> Fix:
    """Take results in the order of their making."""
    return Fix(
        summary="Take what threads make in the order in which you asked for it, and give each task a generator of its "
        "own; let no two threads put into one list or queue, or draw from one generator.",
        snippet="for result in pool.map(prepare, numbers):  # not as_completed\n    use(result)",
    )


REMEDIES = (
    Instead(
        calls=("concurrent.futures.as_completed", "as_completed"),
        template="{0}",
        ordered=True,
        summary="Take the results in the order in which you asked for them; as_completed gives them as they come.",
    ),
    Rename(
        calls=(".imap_unordered",),
        old="imap_unordered",
        new="imap",
        summary="Take the results in the order in which you asked for them; {call} gives them as they come.",
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
    fix=fix,
    remedies=REMEDIES,
    survey=survey,
)
