"""The churn predictor of torch_rng.py, mended: PyTorch is seeded too, before the model is built.

Expect from `repro-audit check sample_models/torch_rng_mended.py:build`: reproducible (exit 0),
also under `--require settings`.
"""

# expect broke = []
from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def customers() -> tuple[Tensor, Tensor]:
    """Eight habits each of 200 customers, and whether they left."""
    habits = np.random.standard_normal((200, 8)).astype(np.float32)
    noise = np.array([random.gauss(0, 0.5) for _ in habits])
    left = habits[:, 0] - habits[:, 1] + noise > 0
    return torch.from_numpy(habits), torch.from_numpy(left).long()


def build(
    seed: int = 0,
) -> tuple[nn.Module, DataLoader[Any], nn.Module, torch.optim.Optimizer]:
    """A classifier with dropout, and the customers in random order."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # whatever the machine has
    loader = DataLoader(TensorDataset(*customers()), batch_size=20, shuffle=True)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
    return model, loader, nn.CrossEntropyLoss(), torch.optim.AdamW(model.parameters(), lr=0.01)
