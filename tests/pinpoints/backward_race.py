"""nondeterministic-op: the backward of a gather races; the line is the gather's."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Gather(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(20, 4) * 0.1)
        self.register_buffer("index", torch.randint(20, (50_000,)))
        self.register_buffer("weight", torch.rand(50_000, 1))

    def forward(self, x):
        table = self.table * 2
        rows = table[self.index]  # HERE aten::index_put backward
        return (rows * self.weight * x).sum().reshape(1, 1)


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    return Gather(), DataLoader(TensorDataset(x, x[:, :1]), batch_size=1)
