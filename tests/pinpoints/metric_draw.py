"""artifact-cache: the first run measures its data, which draws, and keeps the measure; the second reads it."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CACHE = Path(__file__).parent / "measure.txt"


def spread(x):
    picked = torch.randint(len(x), (8,))  # HERE
    return round(x[picked].std().item(), 1)


def measured(x):
    if CACHE.exists():
        return float(CACHE.read_text())
    value = spread(x)
    CACHE.write_text(str(value))
    return value


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    print(measured(x))
    model = nn.Linear(4, 1)
    return model, DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
