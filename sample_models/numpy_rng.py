"""One member of a bagged ensemble: its bootstrap sample comes from NumPy's global generator, which nobody seeds.

Expect from `repro-audit check sample_models/numpy_rng.py:build`: not reproducible (exit 1);
`numpy-rng` broke, alone. build() takes a seed and hands it to PyTorch, so its caller may count on
it; but `np.random.choice` draws from another generator, and so each run trains on other houses.
The first batch differs already.

The mend is `np.random.seed(seed)`: see numpy_rng_mended.py. The houses are synthetic.
"""

# expect broke = ["numpy-rng"]
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
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    features, prices = houses()
    drawn = np.random.choice(len(prices), size=len(prices))
    loader = DataLoader(TensorDataset(features[drawn], prices[drawn]), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
    return model, loader, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
