"""python-rng: the loss smooths its targets by a random amount."""

import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def smooth_loss(output, target):
    amount = random.random() * 0.1  # HERE
    return ((output - target * (1 - amount)) ** 2).mean()


def build(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(16, 4)
    return nn.Linear(4, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4), smooth_loss
