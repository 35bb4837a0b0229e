"""cuDNN times its algorithms and takes the fastest of the moment.

## What it does
The audit runs the program with `torch.backends.cudnn.benchmark` False (pinned), as the program has it, and True.
Another result convicts it. The audit sets the flag before the target is loaded and once more after `build`, so that
its level wins over what the program has set by then. Where only the flipped flag moves the bits of what a CUDA device
computed, that is *delegated* to whoever sets it. *Same* only where a CUDA device ran; without one, a program that
branches on the flag is still found, any other is *not tried*.

## Why it breaks reproducibility
cuDNN has several algorithms for a convolution, which add in different orders and so differ in the last bits. With the
flag on, PyTorch times them for each new shape of input and takes the fastest. That depends on noise, on the load and
on the device, so the next run, even on the same machine, may take another.

## Example
An example for CUDA: it shows where the fastest algorithm is another one than cuDNN would take unasked. A CPU runs it
and shows nothing.

```python
import torch
from torch import nn

torch.backends.cudnn.benchmark = True
device = "cuda" if torch.cuda.is_available() else "cpu"


def build(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=1),
    )
    model.to(device)
    images = torch.randn(64, 16, 16, 16).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def train():
        for batch in images.split(8):
            optimizer.zero_grad()
            loss = (model(batch) - batch.flip(3)).square().mean()
            loss.backward()
            optimizer.step()

    return train
```

## Use instead
The program turns the flag off where it trains.

```python
import torch
from torch import nn

device = "cuda" if torch.cuda.is_available() else "cpu"


def build(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 16, 3, padding=1),
    )
    model.to(device)
    images = torch.randn(64, 16, 16, 16).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def train():
        # before the first convolution
        torch.backends.cudnn.benchmark = False
        for batch in images.split(8):
            optimizer.zero_grad()
            loss = (model(batch) - batch.flip(3)).square().mean()
            loss.backward()
            optimizer.step()

    return train
```

## References
- PyTorch: Reproducibility, CUDA convolution benchmarking:
  <https://docs.pytorch.org/docs/stable/notes/randomness.html#cuda-convolution-benchmarking>
- `torch.backends.cudnn.benchmark`:
  <https://docs.pytorch.org/docs/stable/backends.html#torch.backends.cudnn.benchmark>
"""

from __future__ import annotations

from repro_audit.sources import _cudnn

SOURCE = _cudnn.source(
    __name__, __doc__, flag="benchmark", pinned=False, fix_cost="doing without the benchmark takes"
)
