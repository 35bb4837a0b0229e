"""python-rng: a collate_fn draws from `random`, through a name imported from it."""

from random import uniform

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def collate(samples):
    x = torch.stack([sample[0] for sample in samples])
    y = torch.stack([sample[1] for sample in samples])
    return x * uniform(0.9, 1.1), y  # HERE


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    return nn.Linear(4, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4, collate_fn=collate)
