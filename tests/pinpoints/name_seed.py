"""hash-seed: the dropout is seeded by the hash of a name."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    number = hash("experiment seven") % 1000  # HERE
    torch.manual_seed(number)
    return model, DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
