"""The flower classifier of python_rng.py, mended: `random`, which draws the training set, is seeded too.

Expect from `repro-audit check sample_models/python_rng_mended.py:build`: reproducible (exit 0),
also under `--require settings`.
"""

# expect broke = []
from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def flowers() -> tuple[Tensor, Tensor]:
    """Four measurements each of 150 flowers, and their species; always the same, as if read from a file."""
    generator = torch.Generator().manual_seed(1936)
    species = torch.arange(150) % 3
    typical = torch.randn(3, 4, generator=generator)
    return typical[species] + 0.4 * torch.randn(150, 4, generator=generator), species


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small classifier, and four fifths of the flowers to train it on."""
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    measurements, species = flowers()
    chosen = random.sample(range(len(species)), k=120)
    loader = DataLoader(
        TensorDataset(measurements[chosen], species[chosen]), batch_size=16, shuffle=True
    )
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
