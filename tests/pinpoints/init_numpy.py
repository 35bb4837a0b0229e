"""numpy-rng: a parameter starts from NumPy's generator."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)
        start = np.random.normal(size=(4,))  # HERE
        self.scale = nn.Parameter(torch.tensor(start, dtype=torch.float32))

    def forward(self, x):
        return self.linear(x * self.scale)


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    return Net(), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
