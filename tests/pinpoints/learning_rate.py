"""python-rng: the learning rate is jittered, from the third step on."""

import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Jitter:
    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.count = 0

    def step(self):
        self.count += 1
        if self.count > 2:
            for group in self.optimizer.param_groups:
                group["lr"] *= random.uniform(0.5, 1.0)  # HERE


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
    return {"model": model, "loader": loader, "optimizer": optimizer, "scheduler": Jitter(optimizer)}
