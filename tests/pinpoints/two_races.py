"""nondeterministic-op: two layers race, each by itself; both are named."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(50) * 0.1)
        self.register_buffer("index", torch.randint(50, (100_000,)))

    def forward(self, x):
        values = (x.flatten()[:1] * self.weight).sum() * torch.linspace(0.1, 0.9, 100_000)
        first = torch.zeros(50).index_put((self.index,), values, accumulate=True)  # HERE aten::index_put
        again = first.repeat(2000) * torch.linspace(0.1, 0.9, 100_000)
        second = torch.zeros(50).index_put((self.index,), again, accumulate=True)  # ALSO aten::index_put
        return second.mean().reshape(1, 1) * 1e-6


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    return Pool(), DataLoader(TensorDataset(x, x[:, :1]), batch_size=1)
