"""The classifier of seed_effect.py, mended: build() goes by the seed that it takes.

Expect from `repro-audit check sample_models/seed_effect_mended.py:build`: reproducible (exit 0),
also under `--require settings`.
"""

# expect broke = []
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def two_moons() -> tuple[Tensor, Tensor]:
    """200 points of the plane on two arcs that reach into each other, and which arc each is on."""
    arc = torch.arange(200) % 2
    angle = torch.rand(200) * torch.pi
    points = torch.stack((angle.cos() + arc, angle.sin() * (1 - 2 * arc) + arc / 2), dim=1)
    return points + 0.1 * torch.randn(200, 2), arc


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small classifier, and the points in random order."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    loader = DataLoader(TensorDataset(*two_moons()), batch_size=20, shuffle=True)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=0.01)
