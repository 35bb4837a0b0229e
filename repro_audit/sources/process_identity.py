"""What tells one process from the next decides the result.

## What it does
The audit gives the program numbers of its own choice for what is another one in each run (pinned: always the same),
and then others, one kind at a time: the ids of its processes (`os.getpid`, `os.getppid`,
`multiprocessing.current_process().pid`) and of its threads (`threading.get_ident`, `get_native_id`, `Thread.ident`),
and the times and inode numbers of files that the run itself wrote (`os.stat`, `Path.stat`, `os.path.getmtime`, entries
of `os.scandir`). Another result convicts it, and the report lists the lines that asked. Processes that the program
starts have ids of their own. Where it hands an id back (`os.kill`, `os.waitpid`, `psutil.Process`, `/proc/PID`), the
real one is meant. *Same*: other numbers change nothing. Installed packages are told the program's id of the process
too, but for those that wait for others or log; the standard library and PyTorch see the real ones, and so does C code.

## Why it breaks reproducibility
The operating system numbers processes, threads and files as they come, and hands an address out as the id of a thread.
A seed, a key of a cache, or the name of a file that is made of them is another one in each run, and no seed fixes
that. They get into seeds on purpose, to make processes differ: the rank or the worker's number does that as well.

## Example
The shuffling is seeded with the process's id.

```python
import os
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    order = list(range(64))
    random.Random(os.getpid()).shuffle(order)
    x = torch.tensor(order, dtype=torch.float32).view(-1, 1) / 64
    return nn.Linear(1, 1), DataLoader(
        TensorDataset(x, x.square()), batch_size=8
    )
```

## Use instead
Make the seed of the program's own, and add the number of the process among its own where they shall differ.

```python
import os
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    rank = int(os.environ.get("RANK", "0"))
    print("process", os.getpid(), "has rank", rank)
    order = list(range(64))
    random.Random(1_000 * seed + rank).shuffle(order)
    x = torch.tensor(order, dtype=torch.float32).view(-1, 1) / 64
    return nn.Linear(1, 1), DataLoader(
        TensorDataset(x, x.square()), batch_size=8
    )
```

## References
- Python: `os.getpid`: <https://docs.python.org/3/library/os.html#os.getpid>
- Python: `threading.get_ident`, "has no direct meaning" and "may be recycled":
  <https://docs.python.org/3/library/threading.html#threading.get_ident>
- PyTorch: randomness in multi-process data loading, where `worker_info.seed` is what to use:
  <https://docs.pytorch.org/docs/stable/data.html#randomness-in-multi-process-data-loading>
- Linux: stat(3type): <https://man7.org/linux/man-pages/man3/stat.3type.html>
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.fixes.remedies import Instead
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, Source, Verdict, listed
from repro_audit.sources._program import Lines, evidence, noted, read_lines
from repro_audit.sources.emulation.identity import Identities, Numbers
from repro_audit.sources.emulation.stat import Face, OwnFiles, began, note_by_kind
from repro_audit.storage.facts import Facts, Json

ID = "process-identity"
PINNED = "always the same"
PROCESS, THREAD, TIMES, INODES = "process ids", "thread ids", "file times", "inode numbers"

SECOND, DAY = 10**9, 86_400 * 10**9

USUAL = Numbers(process=5_000_000, thread=139_000_000_000_000, native=5_100_000)
"""Above what Linux calls any process, so that none is meant by it."""
UNUSUAL = Numbers(process=6_123_457, thread=140_123_456_791_360, native=6_234_571)
"""With other remainders by small numbers, which is all that some programs look at."""

ASKS = {
    PROCESS: "asks for the id of a process",
    THREAD: "asks for the id of a thread",
    TIMES: "asks for the times of a file",
    INODES: "asks for the inode number of a file",
}

FIXES = {
    PROCESS: Fix(
        summary="Take the seed, or the key, from the caller; where processes shall differ, add their number among "
        "the program's own.",
        snippet='rank = int(os.environ.get("RANK", "0"))  # not os.getpid()\n'
        "rng = random.Random(1_000 * seed + rank)\n"
        "# in a DataLoader's worker:\n"
        "rng = random.Random(torch.utils.data.get_worker_info().seed)",
    ),
    THREAD: Fix(
        summary="Number the threads that the program starts, and go by that.",
        snippet="for number in range(4):  # not threading.get_ident()\n"
        "    threading.Thread(target=work, args=(number,)).start()",
    ),
    TIMES: Fix(
        summary="Let no file's time decide anything: put what orders the files into their names.",
        snippet='torch.save(state, f"checkpoint-{step:06}.pt")\n'
        'newest = max(Path(".").glob("checkpoint-*.pt"))  # not key=os.path.getmtime',
    ),
    INODES: Fix(
        summary="Know files by their names, not by their inode numbers.",
        snippet="files.sort(key=lambda path: path.name)  # not path.stat().st_ino",
    ),
}


def levels(facts: Facts) -> Levels | str:
    """Other numbers, where the program asks for any; each kind alone only where that makes a difference."""
    asked = facts.survey.get(ID) or {}
    kinds = tuple(kind for kind in ASKS if asked.get(kind))
    if not kinds:
        return (
            "no line of the program was seen to ask for the id of a process or a thread, "
            "or for the times or inode number of a file that it wrote"
        )
    return Levels(varied=kinds)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Put the level's numbers before the program."""
    numbers = USUAL
    if level == PROCESS:
        numbers = replace(numbers, process=UNUSUAL.process)
    if level == THREAD:
        numbers = replace(numbers, thread=UNUSUAL.thread, native=UNUSUAL.native)
    lines = {kind: Lines(trial.directory / _log(kind)) for kind in ASKS}
    files = OwnFiles(
        began=began(trial),
        instant=trial.instant * SECOND + (3 * DAY + 345_678_912 if level == TIMES else 0),
        distance=7 * SECOND if level == TIMES else SECOND,
        first=(1 << 41) + 77_777 if level == INODES else 1 << 40,
        step=-3 if level == INODES else 1,
    )
    noticed = note_by_kind(lines[TIMES], lines[INODES])
    with Replacements() as replacements:
        identities = Identities(numbers, trial, (lines[PROCESS], lines[THREAD]), replacements)
        identities.install()
        Face(change=files.change, noticed=noticed, renamed=identities.path).show(replacements)
        yield


def _log(kind: str) -> str:
    return f"identity-{kind.replace(' ', '-')}.jsonl"


def survey(trial: TrialContext) -> Json:
    """The lines that asked, by what they asked for."""
    lines = {kind: read_lines(trial.directory / _log(kind)) for kind in ASKS}
    return {**lines, "level": trial.setting.get(ID)}


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Say which of them moved the result, and name the lines that asked for it."""
    asked = facts.survey.get(ID) or {}
    moved = [level.level for level in judgement.levels if level.diverged]
    return Verdict.of(
        judgement,
        held=f"other {listed([kind for kind in ASKS if asked.get(kind)])} change nothing",
        broke=f"the program's result depends on its {listed(moved)}, which are others in each run",
        evidence=tuple(
            line for kind in moved for line in evidence(asked.get(kind) or (), ASKS[kind])
        ),
    )


def fix(facts: Facts) -> Fix:
    """What to write for the kind that moved the result."""
    moved: str = (facts.diverged or {}).get("level", PROCESS)
    return FIXES.get(moved, FIXES[PROCESS])


REMEDIES = (
    Instead(
        calls=("os.getpid", "os.getppid", "threading.get_ident", "threading.get_native_id"),
        template="{seed}",
        arguments=None,
        within=("seed", "randomstate", "default_rng", "random.random"),
        summary="Seed with a number of the program's own, not with an id of the operating system's.",
    ),
)


def lines(found: Json) -> tuple[tuple[str, int], ...]:
    """In a trial that showed other numbers: the lines that asked for them."""
    return noted((found or {}).get((found or {}).get("level")))


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    lines=lines,
    fix=fix,
    remedies=REMEDIES,
    survey=survey,
)
