"""The number of intra-op threads decides how sums are split, and so the bits.

## What it does
The audit runs the program with as many intra-op threads as PyTorch takes on this machine (pinned), then with 1, with
2 and with twice the cores. Another result convicts it. The number is set before the target is loaded, so a program
that sets its own keeps it. It breaks the promise `portable`, and is emulated: another machine may differ in more.
*Same*: all numbers give the same.

## Why it breaks reproducibility
An operation on a CPU splits its work among the threads, and each adds up its part. With another number of threads the
parts are others, the additions come in another order, and floating point sums differ in the last bits. PyTorch takes
the number from the machine's cores, or from `OMP_NUM_THREADS`, so the same program differs between machines, and
between a shell and a job that is given fewer cores.

## Example
The gradients of a layer norm are summed by thread.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(512, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    model = nn.Sequential(
        nn.Linear(8, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 1)
    )
    return model, DataLoader(data, batch_size=64)
```

## Use instead
Fix the number in the program. One thread is the surest choice, a number that every machine has is a faster one.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.set_num_threads(1)  # whatever the machine has
    torch.manual_seed(seed)
    x = torch.randn(512, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    model = nn.Sequential(
        nn.Linear(8, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 1)
    )
    return model, DataLoader(data, batch_size=64)
```

## References
- `set_num_threads` changes results: <https://github.com/pytorch/pytorch/issues/88718>
- Other results by `OMP_NUM_THREADS`, found on different machines: <https://github.com/pytorch/pytorch/issues/2201>
- PyTorch: Numerical accuracy: <https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html>
- `torch.set_num_threads`: <https://docs.pytorch.org/docs/stable/generated/torch.set_num_threads.html>
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from repro_audit.context import TrialContext
from repro_audit.option import Kind, Option
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, FixCost, Levels, RunPin, Scope, Source, in_words
from repro_audit.storage import fingerprint
from repro_audit.storage.facts import Facts

PINNED = "as is"
THREADS = Option(
    name="threads",
    kind=Kind.INTEGERS,
    default=None,
    minimum=1,
    help="Numbers of threads to try; if left out, 1, 2 and twice the cores.",
)


def levels(facts: Facts) -> Levels | str:
    """One, two, and twice the machine's cores; without the number that the program runs with."""
    chosen = THREADS.of(facts) or (1, 2, 2 * max(os.cpu_count() or 1, 2))
    varied = tuple(str(count) for count in chosen if count != facts.threads)
    # A single thread races with none.
    return (
        Levels(varied=varied, masks_others=("1",))
        if varied
        else f"it runs with {facts.threads} threads anyway"
    )


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Set the number before the target is loaded; a program that sets its own overrides it, as on any machine."""
    with Replacements() as replacements:
        if level != PINNED:
            trial.when_imported("torch", lambda: _set(int(level), replacements))
        yield


def _set(count: int, replacements: Replacements) -> None:
    torch = sys.modules["torch"]
    replacements.setting(torch.set_num_threads, torch.get_num_threads(), count)


def fix(facts: Facts) -> Fix:
    """Fix the number in the program."""
    return Fix(
        summary="Fix the number of threads in the program, so that every machine splits the work alike.",
        snippet=f"import torch\n\ntorch.set_num_threads({facts.threads})",
    )


def as_recorded(field: str, value: str) -> str | None:
    """The number itself."""
    sensible = re.fullmatch(r"[1-9]\d{0,2}", value, re.ASCII)
    return value if field == fingerprint.THREADS and sensible else None


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.PORTABLE,
    pinned=PINNED,
    levels=levels,
    options=(THREADS,),
    apply=apply,
    judge=in_words(
        held="other numbers of intra-op threads change nothing",
        broke="another number of intra-op threads gives other bits; PyTorch takes it from the machine's cores",
    ),
    fix=fix,
    fix_cost=FixCost(words="the surest fix, one thread, takes", fixed="1", without=PINNED),
    decides_code=True,
    # OpenBLAS, which NumPy computes with, goes by it too.
    run_pin=RunPin(flag="threads", asked=lambda count: {"OMP_NUM_THREADS": count}),
    as_recorded=as_recorded,
)
