"""nondeterministic-op: a scatter in forward races."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16) * 0.1)
        self.register_buffer("index", torch.randint(50, (100_000,)))

    def forward(self, x):
        values = x.flatten().repeat(1000)[:100_000] * 0.1
        sums = torch.zeros(50)
        sums = sums.index_put((self.index,), values, accumulate=True)  # HERE aten::index_put
        return (sums[:16] * self.weight).sum().reshape(1, 1).expand(x.shape[0], 1)


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(32, 64)
    return Pool(), DataLoader(TensorDataset(x, x[:, :1]), batch_size=8)
