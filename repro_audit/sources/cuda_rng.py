"""The generators of the CUDA devices are not seeded.

## What it does
The audit starts the generators of all CUDA devices from one state (A) and from another (B), and leaves all else as it
is. A result that follows the state convicts it where the program answers for its own seeding: `build` takes a `seed`,
the program itself calls `random.seed`, `np.random.seed` or `torch.manual_seed`, or it trains by itself (a procedure,
a trainer), so that nobody else could seed it. A `build` that does none of this, and returns the parts to train,
leaves the seeding to its caller, here the audit: then such a result is *delegated*, and the verdict holds only if the
caller seeds. *Same*: both states give the same. *Not tried* without a CUDA device.

## Why it breaks reproducibility
Each device has a generator of its own, apart from the CPU's: dropout on the device and `torch.randn(device="cuda")`
draw from it. `torch.manual_seed` seeds them all. `torch.cuda.manual_seed` seeds the current device only, and
`torch.set_rng_state` and a `torch.Generator()` concern the CPU. Where nothing seeds a device's generator, PyTorch
does so from the operating system.

## Example
Only the CPU's generator is seeded, and the dropout runs on the device. A CPU can not show this: there it trains on
the generator that was seeded.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

device = "cuda" if torch.cuda.is_available() else "cpu"


def build(seed):
    # the CPU's generator and no other
    torch.default_generator.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 1)
    ).to(device)
    x = torch.randn(64, 8)
    data = TensorDataset(x.to(device), x.sum(1, keepdim=True).to(device))
    return model, DataLoader(data, batch_size=8)
```

## Use instead
`torch.manual_seed` reaches every device.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

device = "cuda" if torch.cuda.is_available() else "cpu"


def build(seed):
    torch.manual_seed(seed)  # every device's generator
    model = nn.Sequential(
        nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 1)
    ).to(device)
    x = torch.randn(64, 8)
    data = TensorDataset(x.to(device), x.sum(1, keepdim=True).to(device))
    return model, DataLoader(data, batch_size=8)
```

## References
- `torch.manual_seed`: <https://docs.pytorch.org/docs/stable/generated/torch.manual_seed.html>
- `torch.cuda.manual_seed`, and why it does not do for several devices:
  <https://docs.pytorch.org/docs/stable/generated/torch.cuda.manual_seed.html>
"""

from __future__ import annotations

from repro_audit.source import Fix
from repro_audit.sources import _ambient

SOURCE = _ambient.source(
    __name__,
    __doc__,
    library="cuda",
    generator="the CUDA devices' generators",
    call="torch.cuda.manual_seed_all",
    levels=lambda facts: _ambient.levels(facts) if facts.cuda else facts.no_cuda,
    fix=Fix(
        summary="Seed all devices; torch.manual_seed does, where nothing seeds a device later.",
        snippet="import torch\n\ntorch.manual_seed(seed)\ntorch.cuda.manual_seed_all(seed)",
    ),
)
