"""Files that the first run leaves change the second run.

## What it does
The audit runs the program on its tree as it stands (pinned), and again on the tree that the first run left. Another
result convicts it, and the report names the files that the first run wrote. *Same*: both give the same. *Not
tried* where the first run writes nothing into its tree. The tree itself stays as it was.

## Why it breaks reproducibility
The run that makes a cache draws random numbers for it; the run that finds the cache does not, and all that is drawn
later (weights, order, dropout) comes from another place in the stream. What is read back may also not be what was
made: rounded, in another order or type, or left by a run with another seed.

## Example
The first run draws the samples from the generator that also makes the weights; the second run reads them.

```python
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CACHE = Path(__file__).with_name("samples.pt")


def build(seed):
    torch.manual_seed(seed)
    if not CACHE.exists():
        torch.save(torch.randn(64, 8), CACHE)
    x = torch.load(CACHE)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=8, shuffle=True)
```

## Use instead
A generator of its own for what is cached, and the file is read back even when it was just made.

```python
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CACHE = Path(__file__).with_name("samples.pt")


def build(seed):
    torch.manual_seed(seed)
    if not CACHE.exists():
        # of its own: the global one stays put
        generator = torch.Generator().manual_seed(seed)
        torch.save(torch.randn(64, 8, generator=generator), CACHE)
    x = torch.load(CACHE)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=8, shuffle=True)
```

## References
- Another order of data with the cache than without, despite the seed:
  <https://github.com/snowflakedb/ArcticTraining/issues/81>
- Other samples after the cache was deleted: <https://github.com/snowflakedb/ArcticTraining/issues/84>
"""

from __future__ import annotations

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.probe.files import place, read_openings
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.storage.facts import Facts, Json

PINNED, WARM = "cold tree", "after one run"
FILES_SHOWN = 3


def levels(facts: Facts) -> Levels | str:
    """The tree that the first run left, where it left anything."""
    if not facts.written:
        wrote = facts.seen("the program wrote no files into its tree")
        return f"{wrote}, so a second run finds what the first one found"
    return Levels(varied=(WARM,))


def survey(trial: TrialContext) -> Json:
    """Where this run read what the first run had written: path, the user's file, line."""
    wrote = set(trial.first_run_wrote)
    return [
        (opening.path, opening.file, opening.line)
        for opening in read_openings(trial.directory / "files.jsonl")
        if opening.event == "open" and "r" in opening.mode and opening.path in wrote
    ]


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name the files."""
    shown, more = facts.written[:FILES_SHOWN], len(facts.written) - FILES_SHOWN
    files = ", ".join(shown) + (f" and {more} more" if more > 0 else "")
    return Verdict.of(
        judgement,
        held=f"a run that finds what an earlier run wrote ({files}) gives the same",
        broke=f"a run that finds what an earlier run wrote ({files}) gives another result",
        evidence=tuple(
            f"run 1 wrote {path}; run 2 read it at {place(file, line)}"
            for path, file, line in facts.diverged or ()
        ),
    )


def fix(_facts: Facts) -> Fix:
    """Take the same path with and without the cache."""
    return Fix(
        summary="Draw the same random numbers whether the cache is there or not: give what is cached a generator of "
        "its own, and read back what was written even when it was just made.",
        snippet="generator = torch.Generator().manual_seed(seed)  # of its own\n"
        "if not path.exists():\n"
        "    torch.save(make(generator), path)\n"
        "data = torch.load(path)  # the same bytes in every run",
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    judge=judge,
    fix=fix,
    survey=survey,
    after_first_run=WARM,
)
