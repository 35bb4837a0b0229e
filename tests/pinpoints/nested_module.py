"""thread-count: the same, three modules deep."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Mean(nn.Module):
    def forward(self, x):
        return x.flatten().sum().reshape(1, 1)  # HERE aten::sum in encoder.layers.1.pool


class Layer(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.pool = Mean() if last else nn.Identity()

    def forward(self, x):
        return self.pool(x)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer(last=False), Layer(last=True)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), 1e-6))
        self.encoder = Encoder()

    def forward(self, x):
        return self.encoder(x * 2) * self.scale


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(4, 200_000)
    return Net(), DataLoader(TensorDataset(x, x[:, :1]), batch_size=1)
