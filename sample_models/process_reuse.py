"""A digit classifier whose batches are shuffled by a generator at module level.

Expect from `repro-audit check sample_models/process_reuse.py:build`: `process-reuse` broke,
alone. That is a promise of the scope `settings`, so the verdict is reproducible (exit 0) unless
`--require settings` is given (exit 1).

The generator is made once, when the module is imported. A second training run in the same
process, as in a notebook or a search over hyperparameters, finds it where the first one left it,
whatever seed build() is given: it sees the digits in another order than a fresh process would.
The first batch differs already.

The mend is to make the generator inside build(): see process_reuse_mended.py. The digits are
synthetic.
"""

# expect broke = ["process-reuse"]
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

SHUFFLING = torch.Generator().manual_seed(0)


def digits() -> tuple[Tensor, Tensor]:
    """Images of 5 x 5 pixels of ten digits, each twenty times; always the same, as if read from a file."""
    generator = torch.Generator().manual_seed(1998)
    labels = torch.arange(200) % 10
    shapes = (torch.rand(10, 25, generator=generator) > 0.5).float()
    return shapes[labels] + 0.2 * torch.randn(200, 25, generator=generator), labels


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small classifier, and the digits in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    loader = DataLoader(TensorDataset(*digits()), batch_size=20, shuffle=True, generator=SHUFFLING)
    model = nn.Sequential(nn.Linear(25, 24), nn.ReLU(), nn.Linear(24, 10))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
