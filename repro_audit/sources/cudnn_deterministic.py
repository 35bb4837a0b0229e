"""Convolutions take whatever algorithm cuDNN likes, deterministic or not.

## What it does
The audit runs the program with `torch.backends.cudnn.deterministic` True (pinned), as the program has it, and False.
Another result convicts it. The audit sets the flag before the target is loaded and once more after `build`, so that
its level wins over what the program has set by then. *Same* only where a CUDA device ran; without one, a program that
branches on the flag is still found, any other is *not tried*.

## Why it breaks reproducibility
Some of cuDNN's algorithms for the gradients of a convolution add with atomic operations, in the order in which
threads happen to arrive; sums of floating point numbers depend on that order, so the bits change from run to run.
With the flag on, only deterministic algorithms are considered. `torch.use_deterministic_algorithms(True)` has the
same effect on convolutions, whatever this flag says, and covers other operations too: see `nondeterministic-op`.

## Example
An example for CUDA: it shows where the deterministic algorithm is another one than cuDNN would take. A CPU runs it
and shows nothing.

```python
import torch
from torch import nn

torch.backends.cudnn.deterministic = False  # as PyTorch has it by default
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
The program turns the flag on where it trains.

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
        torch.backends.cudnn.deterministic = True
        for batch in images.split(8):
            optimizer.zero_grad()
            loss = (model(batch) - batch.flip(3)).square().mean()
            loss.backward()
            optimizer.step()

    return train
```

## References
- PyTorch: Reproducibility, CUDA convolution determinism:
  <https://docs.pytorch.org/docs/stable/notes/randomness.html#cuda-convolution-determinism>
- cuDNN: Reproducibility, and the routines that are not:
  <https://docs.nvidia.com/deeplearning/cudnn/latest/developer/misc.html#reproducibility-determinism>
- `torch.backends.cudnn.deterministic`:
  <https://docs.pytorch.org/docs/stable/backends.html#torch.backends.cudnn.deterministic>
"""

from __future__ import annotations

from repro_audit.sources import _cudnn

SOURCE = _cudnn.source(
    __name__,
    __doc__,
    flag="deterministic",
    pinned=True,
    fix_cost="cuDNN's deterministic algorithms take",
)
