"""python-rng: a sampler of the program's own shuffles with `random`."""

import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset


class Shuffled(Sampler):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __iter__(self):
        order = list(range(self.size))
        random.shuffle(order)  # HERE
        yield from order


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    return nn.Linear(4, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4, sampler=Shuffled(16))
