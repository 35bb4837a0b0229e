"""uninitialized-memory: one of two parameters is never given its values."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.query = nn.Parameter(torch.empty(width, width))
        self.key = nn.Parameter(torch.empty(width, width))  # HERE
        nn.init.xavier_uniform_(self.query)

    def forward(self, x):
        return (torch.nan_to_num(x @ self.key).clamp(-1, 1) * (x @ self.query)).sum(1, keepdim=True)


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 64)
    return Attention(64), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
