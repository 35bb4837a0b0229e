"""The bagged regression of numpy_rng.py, mended: NumPy's global generator, which draws the sample, is seeded too.

Expect from `repro-audit check sample_models/numpy_rng_mended.py:build`: reproducible (exit 0),
also under `--require settings`.
"""

# expect broke = []
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def houses() -> tuple[Tensor, Tensor]:
    """Six features each of 256 houses, and their prices; always the same, as if read from a file."""
    generator = torch.Generator().manual_seed(1978)
    features = torch.randn(256, 6, generator=generator)
    prices = features[:, :1] * 2 - features[:, 1:2] + features[:, 2:3] * features[:, 3:4]
    return features, prices + 0.1 * torch.randn(256, 1, generator=generator)


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A small regression, and as many houses as there are, drawn with replacement."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    features, prices = houses()
    drawn = np.random.choice(len(prices), size=len(prices))
    loader = DataLoader(TensorDataset(features[drawn], prices[drawn]), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
    return model, loader, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
