"""cuBLAS takes its workspace as an environment variable says.

## What it does
The audit runs the program with `CUBLAS_WORKSPACE_CONFIG=:4096:8` (pinned), with the variable as it finds it, and
without it. Another result convicts it. The variable is set before the target is loaded, so a program that sets its own
keeps it. *Same* only where a CUDA device ran; without one, a program that branches on the variable is still found, any
other is *not tried*.

## Why it breaks reproducibility
cuBLAS splits a product among parts of the GPU and adds up in a workspace. Where several streams share one, which part
of it a product gets, and with it the algorithm, could differ from run to run; a workspace of a fixed layout is NVIDIA's
remedy. PyTorch gives each stream its own since 1.13, and in late 2025 `torch.use_deterministic_algorithms` stopped
asking for the variable. Until then it raised an error without it. Its size still decides which algorithms fit, and so
the bits.

## Example
The layers that upsample depend on the variable, as some libraries take it for the sign of a deterministic run.

```python
import os

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    exact = "CUBLAS_WORKSPACE_CONFIG" in os.environ
    images = torch.rand(32, 1, 8, 8)
    up = nn.Upsample(
        scale_factor=2, mode="nearest" if exact else "bilinear"
    )
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        up,
        nn.Conv2d(4, 1, 3, padding=1),
    )
    return model, DataLoader(TensorDataset(images, images), batch_size=4)
```

## Use instead
The program decides for itself, and sets the variable where it wants it.

```python
import os

os.environ["CUBLAS_WORKSPACE_CONFIG"] = (
    ":4096:8"  # before the first CUDA call
)

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    images = torch.rand(32, 1, 8, 8)
    up = nn.Upsample(scale_factor=2, mode="nearest")
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        up,
        nn.Conv2d(4, 1, 3, padding=1),
    )
    return model, DataLoader(TensorDataset(images, images), batch_size=4)
```

## References
- cuBLAS: Results reproducibility: <https://docs.nvidia.com/cuda/cublas/index.html#results-reproducibility>
- PyTorch no longer asks for it: <https://github.com/pytorch/pytorch/pull/161749>
- PyTorch gives each stream a workspace of its own: <https://github.com/pytorch/pytorch/pull/85447>
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.replacements import environment
from repro_audit.source import Fix, Levels, RunPin, Scope, Source, Verdict
from repro_audit.storage.facts import Facts

VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
PINNED, AS_FOUND, UNSET = ":4096:8", "as written", "unset"
NOT_ASKED_FOR = (2, 10)
"""The first PyTorch whose deterministic mode does without the variable."""


def levels(_facts: Facts) -> Levels:
    """The variable as the user has it, and without; a program may look at it on any machine."""
    return Levels(varied=(AS_FOUND, UNSET))


@contextmanager
def apply(level: str, _trial: TrialContext) -> Iterator[None]:
    """Set or unset the variable, which cuBLAS reads when the program first uses it."""
    value = {PINNED: PINNED, UNSET: None}.get(level, os.environ.get(VARIABLE))
    with environment({VARIABLE: value}):
        yield


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """A setting of cuBLAS is held only where a CUDA device ran."""
    if judgement.status == "held" and not facts.cuda:
        return Verdict(
            status="not-exercised",
            reason=f"{facts.no_cuda}; the program does not look at {VARIABLE} either",
        )
    return Verdict.of(
        judgement,
        held=f"other values of {VARIABLE} change nothing",
        broke=f"another value of {VARIABLE} gives another result",
    )


def fix(facts: Facts) -> Fix:
    """Set the variable; where PyTorch's deterministic mode asks for it, that is said."""
    version = _version(facts.torch)
    asked = (
        f" PyTorch {facts.torch} raises an error without it once deterministic algorithms are on."
        if version and version < NOT_ASKED_FOR
        else " PyTorch itself asks for it no longer: it is for what looks at it."
    )
    return Fix(
        summary="Set the variable in the program before its first CUDA call, or in the shell that starts it."
        + asked,
        snippet=f'import os\n\nos.environ["{VARIABLE}"] = "{PINNED}"\n\nimport torch',
    )


def _version(text: str) -> tuple[int, ...]:
    """`2.13.0+cpu` as `(2, 13)`; empty where it is not known."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    run_pin=RunPin(variables={VARIABLE: PINNED}),
    judge=judge,
    fix=fix,
    pinned_by_fix=True,
)
