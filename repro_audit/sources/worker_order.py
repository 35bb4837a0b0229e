"""Which DataLoader worker comes first decides the result.

## What it does
The audit has a loader's workers do their tasks one after the other, in the order of the batches, and hands the batches
out in that order (pinned). Then it holds the first worker back until the others have done all that they were sent, and
the others until the first one has. Each is run several times, the report says how many of how many runs differed, and
one that differs again convicts it. *Same*: all gave the same, as they do by default, where batches come in order and
workers share nothing. *Not tried* where no DataLoader with two workers or more was iterated.

## Why it breaks reproducibility
Workers run side by side, and the system decides who is faster. With `in_order=False` a DataLoader hands out whichever
batch is ready first, and gives further work to whoever has capacity. A counter, a buffer or a file that the workers
share is changed in the order of their arrival. So batches come in another order, or with other contents, from run to
run.

## Example
Batches are taken as they come.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(
        data, batch_size=4, num_workers=2, in_order=False
    )
```

## Use instead
Batches are taken in order, as a DataLoader does if it is not told otherwise.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=4, num_workers=2)
```

## References
- `torch.utils.data.DataLoader`, on `in_order`:
  <https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.DataLoader>
- PyTorch: out of order batches for speed: <https://github.com/pytorch/pytorch/pull/141833>
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources.emulation.turns import (
    FIRST_EARLY,
    FIRST_LATE,
    IN_TURN,
    INTERNALS,
    in_order,
)
from repro_audit.storage.facts import Facts

PINNED = IN_TURN


def levels(facts: Facts) -> Levels | str:
    """The first worker late, or early; several times, as not all that follows is forced."""
    if max((loader["num_workers"] for loader in facts.loaders), default=0) <= 1:
        return facts.seen("no DataLoader with two workers or more was iterated")
    return Levels(varied=(FIRST_LATE, FIRST_EARLY), race=True, forced=True)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Give the workers their turns."""
    with ExitStack() as stack:
        directory = trial.directory / "turns"
        trial.when_imported("torch", lambda: stack.enter_context(in_order(level, directory)))
        yield


def judge(judgement: Judgement, _facts: Facts) -> Verdict:
    """Say how many of how many runs differed."""
    differed, total = judgement.race or (0, 0)
    return Verdict.of(
        judgement,
        held="workers that are late, or early, change nothing",
        broke=f"{differed} of {total} runs with a worker held back differ from those with each in its turn",
    )


def fix(_facts: Facts) -> Fix:
    """Batches in order, and nothing shared."""
    return Fix(
        summary="Leave in_order at True, so that batches come in the order of the sampler. Let samples depend on their "
        "index and the epoch, never on what the workers share: they change it in the order of their arrival.",
        snippet="loader = DataLoader(data, num_workers=2)  # not in_order=False",
    )


SOURCE = Source(
    name=__name__,
    internals=INTERNALS,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    fix=fix,
)
