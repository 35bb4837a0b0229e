"""python-rng: a torch.Generator of the program's own gets its seed from `random`."""

import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed=0):
    torch.manual_seed(seed)
    generator = torch.Generator()
    start = random.getrandbits(20)  # HERE
    generator.manual_seed(start)
    x = torch.randn(16, 4, generator=generator)
    return nn.Linear(4, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
