"""Operations that PyTorch warns of, and that race nowhere here; the program takes warnings for errors."""

import warnings

import torch
from torch import nn
from torch._prims_common import alert_not_deterministic
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("error")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        alert_not_deterministic("exact_all_the_same")
        pooled, indices = F.max_pool1d(self.layer(x)[:, None], 2, return_indices=True)
        return F.max_unpool1d(pooled, indices, 2)[:, 0]


def build(seed):
    torch.set_num_threads(2)
    torch.manual_seed(seed)
    x = torch.randn(32, 4)
    return Model(), DataLoader(TensorDataset(x, x * 2), batch_size=8)
