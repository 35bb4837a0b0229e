"""artifact-cache: the first run leaves a rounded file that the second one reads."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CACHE = Path(__file__).parent / "shift.txt"


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    shift = 0.0
    if CACHE.exists():
        shift = float(CACHE.read_text())  # HERE
    CACHE.write_text("0.5")
    x = x + shift
    return nn.Linear(4, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
