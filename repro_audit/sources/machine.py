"""Which kind of machine the program runs on decides the result.

## What it does
With `--on ray` the audit runs on a cluster: trials run on the nodes of one kind (pinned), and one trial on each other
kind of node (varied), with everything else pinned. A kind is all that a node tells of what it computes with: CPU model
and instructions, number of cores, GPU model and driver, versions of PyTorch and NumPy, and the variables of its
environment that kernels read. Another result, twice, convicts it, and both runs are compared op by op. Nothing is
emulated here. *Same*: every kind gave the same; other kinds of machine may still differ. *Not tried* on one
machine, and where all nodes are of one kind.

## Why it breaks reproducibility
The libraries under PyTorch hold several versions of each kernel and take the best for the machine: wider registers and
more cores add the same numbers in another order, and each GPU model has kernels of its own. PyTorch promises equal
results neither across platforms nor across releases.

## Example
Every layer here is computed by kernels that differ between kinds of CPU.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    return model, DataLoader(data, batch_size=8, shuffle=True)
```

## Use instead
One thread, and all three libraries at the baseline that every x86 CPU has, set before PyTorch is imported: slower, and
alike on many CPUs. No setting makes two models of GPUs agree; compare only runs of one kind.

```python
import os

os.environ["ATEN_CPU_CAPABILITY"] = "default"
os.environ["ONEDNN_MAX_CPU_ISA"] = "SSE41"
os.environ["MKL_CBWR"] = "COMPATIBLE"

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    return model, DataLoader(data, batch_size=8, shuffle=True)
```

## References
- PyTorch: Reproducibility: <https://docs.pytorch.org/docs/stable/notes/randomness.html>
- PyTorch: Numerical accuracy: <https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html>
- Ray: environments of nodes, `working_dir`: <https://docs.ray.io/en/latest/ray-core/handling-dependencies.html>
"""

from __future__ import annotations

from repro_audit.experiment import Judgement
from repro_audit.source import Fix, Levels, Scope, Source, Verdict, listed
from repro_audit.storage.facts import Facts

PINNED = "the first trial's kind"
SNIPPET = """\
import os

os.environ["ATEN_CPU_CAPABILITY"] = "default"  # before PyTorch is imported
os.environ["ONEDNN_MAX_CPU_ISA"] = "SSE41"
os.environ["MKL_CBWR"] = "COMPATIBLE"

import torch

torch.set_num_threads(1)"""


def levels(facts: Facts) -> Levels | str:
    """The other kinds of node in the cluster."""
    if not facts.machines:
        return "there is one machine; --on ray tries the kinds of machine of a cluster"
    own, *others = facts.machines
    if not others:
        return f"all nodes of the cluster are of one kind: {own}"
    # Kinds differ more often than not, which would spoil a group.
    return Levels(varied=tuple(others), alone=True)


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name the kinds that agree, and those that do not."""
    own = facts.machines[0] if facts.machines else ""
    differ = [f"({each.level})" for each in judgement.levels if each.diverged]
    agree = [
        f"({own})",
        *(f"({each.level})" for each in judgement.levels if each.diverged is False),
    ]
    others = f"; {listed(agree)} agree" if len(agree) > 1 else ""
    return Verdict.of(
        judgement,
        held=f"the kinds of machine agree: {listed(agree)}",
        broke=f"{listed(differ)} computed otherwise than ({own}){others}",
    )


def fix(_facts: Facts) -> Fix:
    """Cap the kernels, or compare within one kind."""
    return Fix(
        summary="Compare numbers only between runs on one kind of machine. Where CPUs differ, kernels that are capped "
        "at what all of them have, and one thread, compute alike on many",
        snippet=SNIPPET,
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.PORTABLE,
    pinned=PINNED,
    levels=levels,
    judge=judge,
    fix=fix,
    places_trials=True,
)
