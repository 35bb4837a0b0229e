"""numpy-rng: a custom autograd Function draws from NumPy in forward."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Quantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        shift = np.random.uniform(-0.5, 0.5, size=tuple(x.shape))  # HERE
        return torch.round(x * 8 + torch.from_numpy(shift).float()) / 8

    @staticmethod
    def backward(ctx, grad):
        return grad


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x):
        return Quantise.apply(self.linear(x))


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    return Net(), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
