"""Which thread comes first decides the result.

## What it does
The audit lets one of the program's threads run at a time, the main one included: until it ends or has to wait, for a
lock, a queue, another thread, or to wake up. Then the one goes on that was started first (pinned). At the varied
levels the one that was started last goes on, and one that has taken something from a queue lets all others run first;
or whoever has waited longest, at each use of a lock or a queue; or all run as written, with the interpreter switching
between them as often as it can, beside a process that keeps a core busy. The first three are forced, so how busy the
machine is does not come into them. Threads count that the program's own code starts: by `threading`, executors,
`asyncio.to_thread`, `multiprocessing.pool.ThreadPool`, or a library that it calls; those that PyTorch or
`multiprocessing` start for themselves are left alone. The report says how many of how many runs differed, and a level
that differs again convicts. *Same*: all gave the same; a race that none of them met is not ruled out. *Not tried*
where the program starts no threads, or where one neither ends nor waits, so that no order can be kept.

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

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.fixes.remedies import Instead, Rename
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources.emulation.baton import Policy
from repro_audit.sources.emulation.load import load
from repro_audit.sources.emulation.threads import Schedule, scheduled, sleep
from repro_audit.storage import reads
from repro_audit.storage.facts import Facts, Json

ID = "thread-timing"
PINNED, LAST_FIRST, IN_TURNS = "in order", "last first", "in turns"
RELEASED = "as written, under load"
POLICIES: dict[str, Policy | None] = {
    PINNED: "first",
    LAST_FIRST: "last",
    IN_TURNS: "turns",
    RELEASED: None,
}
SWITCH_OFTEN = 1e-5


def levels(facts: Facts) -> Levels | str:
    """Other orders, and released; several times, as not all that follows is forced."""
    if not facts.survey.get(ID):
        return facts.seen("no thread was seen to start")
    return Levels(
        varied=(LAST_FIRST, IN_TURNS, RELEASED), race=True, forced=True, released=(RELEASED,)
    )


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Schedule the program's threads; where they are released, load the machine once there are any."""
    with ExitStack() as stack:

        def began() -> None:
            if level == RELEASED:
                stack.callback(sys.setswitchinterval, sys.getswitchinterval())
                sys.setswitchinterval(SWITCH_OFTEN)
                stack.enter_context(load())

        # Where the floor's trial had to let them go, no other one need wait as long as that took.
        hopeless = ID in trial.unpinned
        schedule = Schedule(None if hopeless else POLICIES[level], began=began)
        baton = schedule.baton
        trial.notes[ID] = {"started": schedule.places, "taken": schedule.taken}
        stack.enter_context(scheduled(schedule))
        if baton is not None:
            trial.unpinned[ID] = baton.let_go
            trial.sleep = sleep
            trial.when_imported("torch", partial(_after_steps, baton.step, stack))
        yield


def _after_steps(step: Callable[[], None], stack: ExitStack) -> None:
    """Have something called after each optimizer's step; torch is imported."""
    optimizer: Any = importlib.import_module("torch.optim.optimizer")
    stack.callback(optimizer.register_optimizer_step_post_hook(lambda *_: step()).remove)


def survey(trial: TrialContext) -> Json:
    """The lines that start threads or hand tasks to them, and those that take results as they are finished."""
    found = trial.notes.get(ID)
    return found if found and found["started"] else None


def lines(found: Json) -> Iterable[tuple[str, int]]:
    """The lines that take results as they are finished."""
    return [(file, line) for file, line in found["taken"]] if found else ()


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Say how many of how many runs differed, and where the threads come from."""
    differed, total = judgement.race or (0, 0)
    stuck = [f"at {where} a thread neither ends nor waits" for where in facts.unpinned.get(ID, ())]
    if stuck and judgement.status != "broke":
        reason = f"the program's threads could not be kept in order: {stuck[0]}"
        return Verdict(status="not-exercised", reason=reason)
    started = (facts.survey.get(ID) or {}).get("started", ())
    return Verdict.of(
        judgement,
        held="threads in another order, or left to themselves under load, change nothing",
        broke=f"{differed} of {total} runs with the threads in another order, or left to themselves, differ",
        evidence=(*(f"threads are started at {where}" for where in started), *stuck),
    )


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
    lines=lines,
    reads=frozenset((reads.COMPLETION,)),
)
