"""PyTorch's CPU generator is not seeded.

## What it does
The audit starts PyTorch's CPU generator from one state (A) and from another (B), and leaves all else as it is. A
result that follows the state convicts it where the program answers for its own seeding: `build` takes a `seed`, the
program itself calls `random.seed`, `np.random.seed` or `torch.manual_seed`, or it trains by itself (a procedure, a
trainer), so that nobody else could seed it. A `build` that does none of this, and returns the parts to train, leaves
the seeding to its caller, here the audit: then such a result is *delegated*, and the verdict holds only if the caller
seeds. *Same*: both states give the same.

## Why it breaks reproducibility
Initial weights, `shuffle=True`, `random_split` and dropout on a CPU draw from one generator that the whole process
shares. So does every iterator of a DataLoader, for the base seed of its workers: also with `shuffle=False`, and also
without workers. Where nothing seeds it, PyTorch does so from the operating system, and each process begins elsewhere.

## Example
`build` takes a seed, but PyTorch never hears of it: weights and the order of samples are new in each process.

```python
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    random.seed(seed)
    np.random.seed(seed)
    x = torch.linspace(-1, 1, 512).reshape(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=8, shuffle=True)
```

## Use instead
Seed it before the model is built and the loader is iterated.

```python
import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    x = torch.linspace(-1, 1, 512).reshape(64, 8)
    data = TensorDataset(x, x.sum(1, keepdim=True))
    return nn.Linear(8, 1), DataLoader(data, batch_size=8, shuffle=True)
```

## References
- PyTorch: Reproducibility, random number generator:
  <https://docs.pytorch.org/docs/stable/notes/randomness.html#pytorch-random-number-generator>
- `torch.manual_seed`: <https://docs.pytorch.org/docs/stable/generated/torch.manual_seed.html>
- A DataLoader draws its base seed whatever the number of workers: <https://github.com/pytorch/pytorch/pull/12935>
"""

from __future__ import annotations

from repro_audit.fixes.seeding import SeedBeside
from repro_audit.source import Fix
from repro_audit.sources import _ambient

SOURCE = _ambient.source(
    __name__,
    __doc__,
    library="torch",
    generator="PyTorch's CPU generator",
    call="torch.manual_seed",
    seeded_by="torch.manual_seed",
    fix=Fix(
        summary="Seed it before the model is built and the loader is iterated.",
        snippet="import torch\n\ntorch.manual_seed(seed)",
    ),
    remedies=(
        SeedBeside(
            function="torch.manual_seed", summary="Seed PyTorch too: no other seed reaches it."
        ),
    ),
)
