"""python-rng: a custom autograd Function draws from `random` in backward."""

import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Jitter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        factor = 1 + random.random() * 1e-3  # HERE
        return grad * factor


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, x):
        return Jitter.apply(self.linear(x))


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    return Net(), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
