"""The digit classifier of process_reuse.py, mended: build() makes the generator that shuffles the batches.

Expect from `repro-audit check sample_models/process_reuse_mended.py:build`: reproducible (exit
0), also under `--require settings`.
"""

# expect broke = []
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


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
    shuffling = torch.Generator().manual_seed(seed)
    loader = DataLoader(TensorDataset(*digits()), batch_size=20, shuffle=True, generator=shuffling)
    model = nn.Sequential(nn.Linear(25, 24), nn.ReLU(), nn.Linear(24, 10))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
