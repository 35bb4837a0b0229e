"""Python's `random` is not seeded.

## What it does
The audit starts Python's `random` from one state (A) and from another (B), and leaves all else as it is. A result
that follows the state convicts it where the program answers for its own seeding: `build` takes a `seed`, the program
itself calls `random.seed`, `np.random.seed` or `torch.manual_seed`, or it trains by itself (a procedure, a trainer),
so that nobody else could seed it. A `build` that does none of this, and returns the parts to train, leaves the
seeding to its caller, here the audit: then such a result is *delegated*, and the verdict holds only if the caller
seeds. *Same*: both states give the same.

## Why it breaks reproducibility
`random.shuffle`, `random.random` and the like draw from one generator that the whole process shares. Python seeds it
from the operating system when `random` is first imported, so each process begins elsewhere. `torch.manual_seed` and
`np.random.seed` do not reach it, and every library that draws from it moves it on.

## Example
`build` takes a seed and passes it to PyTorch alone; the samples are shuffled by `random`.

```python
import random

import torch
from torch import nn
from torch.utils.data import DataLoader


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    samples = list(zip(x, x.sum(1, keepdim=True)))
    random.shuffle(samples)
    return nn.Linear(8, 1), DataLoader(samples, batch_size=8)
```

## Use instead
Seed it as well. Or draw from a generator of the program's own: `random.Random(seed).shuffle(samples)`.

```python
import random

import torch
from torch import nn
from torch.utils.data import DataLoader


def build(seed):
    random.seed(seed)
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    samples = list(zip(x, x.sum(1, keepdim=True)))
    random.shuffle(samples)
    return nn.Linear(8, 1), DataLoader(samples, batch_size=8)
```

## References
- Python: `random.seed`: <https://docs.python.org/3/library/random.html#random.seed>
- PyTorch: Reproducibility, Python: <https://docs.pytorch.org/docs/stable/notes/randomness.html#python>
"""

from __future__ import annotations

from repro_audit.fixes.seeding import SeedBeside
from repro_audit.source import Fix
from repro_audit.sources import _ambient

SOURCE = _ambient.source(
    __name__,
    __doc__,
    library="python",
    generator="Python's random",
    call="random.seed",
    seeded_by="random.seed",
    fix=Fix(
        summary="Seed it before anything draws from it, with the seed that build() was given.",
        snippet="import random\n\nrandom.seed(seed)",
    ),
    remedies=(
        SeedBeside(
            function="random.seed", summary="Seed Python's random too: no other seed reaches it."
        ),
    ),
)
